"""`causal-sgd list`: the studies with their claims and times, and the names of all options."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shlex
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from causal_sgd.cli.help import wrapped
from causal_sgd.cli.outputs import plain
from causal_sgd.experiment import SYSTEMS

if TYPE_CHECKING:
    from causal_sgd.experiment._base import BaseExperiment
    from causal_sgd.studies import Study
    from causal_sgd.studies._constants import Constant
    from causal_sgd.studies._selection import Selected
    from causal_sgd.studies.reproduction import Time

__all__ = ["List"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List the studies by system and question, or the claims of one study.

    For example: causal-sgd list phase-diagram
    """

    study: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[STUDY]")] = None
    """Describe this study: its method, claims, constants and times; a file such as ./my_study.py
    or a module may be one, too."""
    names: bool = False
    """List the names and axes that `run` and `phase` accept instead."""
    out: Path = Path("figures")
    """Results of `causal-sgd reproduce`, whose times are listed."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Print the list."""
        from causal_sgd import studies
        from causal_sgd.studies._selection import select

        if self.names and self.study is not None:
            raise ValueError(f"--names must not be given with a study, got {self.study!r}")
        one = None if self.study is None else select(self.study)
        if self.json:
            listed = map(select, studies.NAMES) if one is None else (one,)
            report: dict[str, object] = {"studies": [self._report(study) for study in listed]}
            if self.study is None:
                systems = {
                    system: {"names": dict(kind.choices()), "axes": _axes(kind)}
                    for system, kind in SYSTEMS.items()
                }
                # At the top those of the first system, as before there were two.
                report |= {**systems["sensing"], "systems": systems}
            print(json.dumps(report))
        elif self.names:
            self._print_names()
        elif one is not None:
            self._print_one(one)
        else:
            self._print_all()
        return 0

    def _print_all(self) -> None:
        from causal_sgd import studies
        from causal_sgd.studies.reproduction import duration

        width = max(map(len, studies.NAMES))
        totals = {"core": 0.0, "all": 0.0}
        unknown, needs = False, []
        for group in studies.grouped():
            print(group.title)
            for name in group.names:
                study = studies.load(name)
                time = self._times(name)["full"]
                seconds = 0.0 if time is None else time.seconds
                unknown |= time is None
                totals["all"] += seconds
                totals["core"] += seconds if name in studies.CORE else 0
                when = "?" if time is None else duration(seconds)
                star = "*" if name in studies.CORE else " "
                if lacking := studies.lacking(study):
                    needs.append(f"{name} {lacking}")
                room = shutil.get_terminal_size().columns - width - 15
                text = textwrap.shorten(studies.title(study), max(room, 20), placeholder=" ...")
                print(f"{star} {name:<{width}}  {when:>8}  {text}")
            print()
        more = "more than " if unknown else ""
        print(f"total: {more}{duration(totals['all'])}; with a star: {duration(totals['core'])}")
        for text in needs:
            print(text)
        print("`causal-sgd reproduce` runs those with a star, with --all it runs all")
        print("claims of a study: causal-sgd list STUDY")
        print("names and axes of run and phase: causal-sgd list --names")

    def _print_names(self) -> None:
        print("In names, hyphens and underscores are the same.")
        for system, kind in SYSTEMS.items():
            words = "run" if kind.SYSTEM.implied else f"run {system}"
            print(f"\nnames of `causal-sgd {words}`:")
            for field, options in kind.choices().items():
                listed = (option.replace("_", "-") for option in options)
                print("\n".join(wrapped(f"--{field.replace('_', '-')}: {', '.join(listed)}", "  ")))
            print(f"axes of `causal-sgd {words.replace('run', 'phase')}`:")
            print("\n".join(wrapped(", ".join(_axes(kind)), "  ")))

    def _print_one(self, selected: Selected) -> None:
        from causal_sgd import studies

        name, study = selected.name, selected.study
        finding = inspect.cleandoc(study.__doc__ or "")
        for label, text in (
            (name, finding),
            ("method", study.run.__doc__),
            ("figure", study.figure.__doc__),
        ):
            paragraphs = inspect.cleandoc(text or "").split("\n\n")
            print(f"{label}:")
            print("\n\n".join("\n".join(wrapped(paragraph, "  ")) for paragraph in paragraphs))
        print("\n".join(f"takes     {text}" for text in self._in_words(name)))
        if needed := studies.requirements(study):
            print(f"needs     {', '.join(needed)} ({studies.lacking(study) or 'installed'})")
        print("claims:")
        _print_claims(study)
        if constants := selected.settable():
            print("constants:")
            _print_constants(constants)
        print(f"run it:   causal-sgd reproduce {shlex.quote(selected.word)}")
        if constants:
            print(f"          causal-sgd reproduce {shlex.quote(selected.word)} --set NAME=value")

    def _report(self, selected: Selected) -> dict[str, object]:
        from causal_sgd import studies
        from causal_sgd.studies._constants import shown

        name, study = selected.name, selected.study
        times = {
            size: None if time is None else time._asdict()
            for size, time in self._times(name).items()
        }
        return {
            "name": name,
            "system": studies.system_of(name),
            "question": studies.question_of(name),
            "title": studies.title(study),
            "finding": inspect.cleandoc(study.__doc__ or "").partition("\n")[2].strip(),
            "core": name in studies.CORE,
            "requires": dict(studies.requirements(study)),
            "lacking": studies.lacking(study) or None,
            "claims": [
                {"name": short}
                | claim._asdict()
                | {"low": plain(claim.low), "high": plain(claim.high)}
                for short, claim in study.CLAIMS.items()
            ],
            "constants": [
                {"name": constant.name, "value": shown(constant.value), "meaning": constant.meaning}
                for constant in selected.settable()
            ],
            "times": times,
        }

    def _times(self, name: str) -> dict[str, Time | None]:
        from causal_sgd.studies.reproduction import time_of

        return {
            "full": time_of(name, self.out, quick=False),
            "quick": time_of(name, self.out, quick=True),
        }

    def _in_words(self, name: str) -> list[str]:
        """The times of a study in full and quick, with the machine if it is another one."""
        from causal_sgd.studies.reproduction import duration

        texts = []
        for size, time in self._times(name).items():
            if time is None:
                texts.append(f"{size}: not measured yet")
            else:
                where = f"here on {time.date}" if time.here else f"elsewhere, on {time.machine}"
                texts.append(f"{size}: {duration(time.seconds)} ({where})")
        return texts


def _print_claims(study: Study) -> None:
    for claim in study.CLAIMS.values():
        source = f"  ({claim.source})" if claim.judged else ""
        first, *rest = wrapped(f"{claim.text}{source}", " " * 23)
        print("\n".join([f"    {claim.interval:<18} {first.strip()}", *rest]))


def _print_constants(constants: Sequence[Constant]) -> None:
    """Print a line for each constant: its name, its value, and its comment where it has one."""
    from causal_sgd.studies._constants import brief

    width = max(len(constant.name) for constant in constants)
    room = max(shutil.get_terminal_size().columns - width - 7, 20)
    for constant in constants:
        value = textwrap.shorten(brief(constant.value), room, placeholder=" ...")
        left = room - len(value) - 4
        short = len(value) + 4 + 12 <= room and constant.meaning
        meaning = textwrap.shorten(constant.meaning, left, placeholder=" ...") if short else ""
        print(f"    {constant.name:<{width}} = {value}" + (f"  # {meaning}" if meaning else ""))


def _axes(kind: type[BaseExperiment]) -> list[str]:
    return [name.replace("_", "-") for name in kind.sweepable()]
