"""Studies as people ask for them: a built-in name, a file, a module; with other constants."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeAlias

from causal_sgd import checks, studies
from causal_sgd.studies import Study
from causal_sgd.studies._constants import Constant, constants_of, homes, shown
from causal_sgd.studies._finding import beside, built_in, own_module, package_module, slug
from causal_sgd.studies._imports import Module, Territory
from causal_sgd.studies._loading import load, stamp

__all__ = ["Changed", "Selected", "Wanted", "chosen", "current", "name_of", "select", "words_of"]

LONGEST = 80  # characters of a name


class Changed(NamedTuple):
    """A constant that was set."""

    value: str
    default: str


class Selected(NamedTuple):
    """A study that was selected."""

    name: str
    """Of its results and figures: phase-diagram[BASE.dim=100] where constants are set."""
    word: str
    """What selects it: a built-in name, the path of a file, or the name of a module."""
    study: Study
    module: Module
    territory: Territory | None
    """Its local modules; None for those of the package."""
    constants: Mapping[str, Changed] = {}
    """The constants that were set."""
    given: Mapping[str, object] = {}
    """The same as they were given."""
    stamps: Mapping[Path, str] = {}
    """The files that were imported, with digests of what they held."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled as what selects it; another process imports it from its file."""
        return _again, (self.place, self.given, self.word)

    @property
    def place(self) -> str | Path:
        """What selects it in any folder."""
        return self.base if self.territory is None else self.module.file

    @property
    def base(self) -> str:
        """The name without the constants that were set."""
        return self.name.partition("[")[0]

    def settable(self) -> list[Constant]:
        """The constants that may be set, with their values."""
        territory = self.territory or beside(self.module)
        return list(constants_of(self.study, homes(self.module, territory)))


Wanted: TypeAlias = str | Selected
"""A built-in study by its name, or any that was selected."""


def name_of(wanted: Wanted) -> str:
    """The name of a study's results."""
    return wanted if isinstance(wanted, str) else wanted.name


def words_of(wanted: Sequence[Wanted]) -> list[str]:
    """The words of a command line that select studies."""
    words = [one if isinstance(one, str) else one.word for one in wanted]
    for one in wanted:
        place = f"{one.base}:" if isinstance(one, Selected) and len(wanted) > 1 else ""
        for name, constant in {} if isinstance(one, str) else one.constants.items():
            words += ["--set", f"{place}{name}={constant.value}"]
    return words


def chosen(words: Sequence[str], settings: Sequence[str]) -> tuple[Selected, ...]:
    """The studies of a command line, each once.

    Args:
        words: names, paths and modules.
        settings: NAME=value for all of them, or STUDY:NAME=value for one of them.

    Raises:
        ValueError: as for `select`, for a text that is no setting or names another study, and for
            two studies of one name.
    """
    plain: dict[str, Selected] = {}
    for word in words:
        one = select(word)
        other = plain.setdefault(one.name, one)
        if other.module.file != one.module.file:
            raise ValueError(
                f"studies must have different names, got {other.word!r} and {word!r}: rename one"
            )
    given = _settings_in(settings, list(plain))
    return tuple(
        select(one.word, values) if values else one
        for one, values in zip(plain.values(), given, strict=True)
    )


def select(
    study: str | Path | ModuleType | Selected, constants: Mapping[str, object] | None = None
) -> Selected:
    """Find and import a study.

    Args:
        study: a built-in name, the path of a file (ending in .py), or a module or its name. A study
            that is not built in is always read from its file.
        constants: new values for constants of its module, and for fields of experiments among them
            (`BASE.dim`).

    Raises:
        ValueError: if there is no such study, its module cannot be imported or is no study, or it
            lacks a constant.
    """
    if isinstance(study, Selected):
        return study
    name = built_in(study)
    if name is not None:
        module, word = package_module(name), name
        if not constants:
            return Selected(name, word, studies.load(name), module, None)
        territory, loaded = None, load(module, beside(module), word, constants)
    else:
        module, word = own_module(study)
        name, territory = slug(module), Territory.around(module)
        loaded = load(module, territory, word, constants or {})
    texts = {
        key: Changed(shown(_held(loaded.study, key)), shown(default))
        for key, default in loaded.defaults.items()
    }
    return Selected(
        name=_named(name, texts),
        word=word,
        study=loaded.study,
        module=module,
        territory=territory,
        constants=texts,
        given=dict(constants or {}),
        stamps=loaded.stamps,
    )


def current(wanted: Wanted) -> Selected:
    """A study as its files are now: imported again if one of them was edited since."""
    selected = select(wanted)
    if all(stamp(file) == digest for file, digest in selected.stamps.items()):
        return selected
    return _again(selected.place, selected.given, selected.word)


def _again(place: str | Path, constants: Mapping[str, object], word: str) -> Selected:
    """A study selected anew, with the word that it had."""
    return select(place, constants)._replace(word=word)


def _settings_in(texts: Sequence[str], names: Sequence[str]) -> list[dict[str, str]]:
    """The settings of each study among those of a command line.

    Args:
        texts: NAME=value for all studies, or STUDY:NAME=value for one of them.
        names: of the studies.

    Raises:
        ValueError: if a text is no setting, or names another study.
    """
    settings: list[dict[str, str]] = [{} for _ in names]
    for text in texts:
        place, equals, value = text.partition("=")
        study, colon, constant = place.rpartition(":")
        if not equals or not constant:
            raise ValueError(f"--set must be NAME=value or STUDY:NAME=value, got {text!r}")
        chosen = names.index(checks.spelled("study of --set", study, names)) if colon else None
        for index, own in enumerate(settings):
            if chosen in (None, index):
                own[constant] = value
    return settings


def _held(study: Study, setting: str) -> object:
    name, _, field = setting.partition(".")
    value = getattr(study, name)
    return getattr(value, field) if field else value


def _named(name: str, constants: Mapping[str, Changed]) -> str:
    """The name with settings, short and of characters that files may have."""
    if not constants:
        return name
    texts = ",".join(f"{key}={value.value}" for key, value in sorted(constants.items()))
    plain = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", texts)
    if plain != texts or len(plain) > LONGEST:
        digest = hashlib.sha256(texts.encode()).hexdigest()[:8]
        plain = f"{plain[:LONGEST]}_{digest}"
    return f"{name}[{plain}]"
