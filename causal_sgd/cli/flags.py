"""Flags as they were typed: in messages of the library, and where they have no effect."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence

from causal_sgd.cli.help import flags_of
from causal_sgd.experiment import SYSTEMS
from causal_sgd.experiment._base import BaseExperiment

__all__ = ["check_effect", "named", "typed"]

MOST_LISTED = 12  # options in a message that suggests one of them


def typed(words: Sequence[str], kind: type) -> dict[str, str]:
    """The fields of a command whose flags stand among the words, each with its flag as typed."""
    names = set(flags_of(kind))
    flags = {}
    for word in words:
        if word.startswith("--"):
            flag = word.partition("=")[0]
            name = flag.removeprefix("--").replace("-", "_")
            name = name if name in names else name.removeprefix("no_")
            if name in names:
                flags[name] = flag
    return flags


def named(message: str, words: Sequence[str], kind: type) -> str:
    """A message of the library with flags in place of fields, and options in hyphens.

    Args:
        message: such as "batch_size must be at most 9 where sampler is 'block'".
        words: the command line.
        kind: the dataclass of the command.
    """
    given = _axes(words) | typed(words, kind)
    flags = {
        name: given.get(name, "--" + name.replace("_", "-")) for name in sorted(flags_of(kind))
    }
    spoken = {name.replace("_", " "): flag for name, flag in flags.items()} | flags
    start = rf"^{_one_of(spoken)}(?= (must|has|needs|cannot|or)\b)"
    message = re.sub(start, lambda found: spoken[found[1]], message)
    message = re.sub(r"\(\w*Error: \[Errno \d+\] ([^:)]+)(: '[^']*')?\)", r"(\1)", message)
    before, listed, after = _around_list(message)
    return _with_flags(before, flags) + _in_hyphens(listed) + _with_flags(after, flags)


def check_effect(command: object, words: Sequence[str]) -> None:
    """Raise ValueError if a flag was given that has no effect here.

    Args:
        command: the parsed command; its `why_unused(field)`, if it has one, is about its own flags.
        words: the command line.
    """
    experiment = getattr(command, "experiment", None)
    own = getattr(command, "why_unused", lambda field: None)
    for field, flag in typed(words, type(command)).items():
        reason = own(field)
        if reason is None and isinstance(experiment, BaseExperiment):
            is_part = hasattr(experiment, field) and not hasattr(command, field)
            reason = experiment.why_unused(field) if is_part else None
        if reason is not None:
            raise ValueError(f"{flag} must not be given {reason}: it has no effect there")


def _axes(words: Sequence[str]) -> dict[str, str]:
    """The parameters that are axes of a diagram, each with its flag and its name as typed."""
    found = re.findall(r"(?:^|\0)(--[xy])[\0=]([\w-]+)=", "\0".join(words))
    return {name.replace("-", "_"): f"{flag} {name}" for flag, name in found}


def _around_list(message: str) -> tuple[str, str, str]:
    """What stands before a list of options, from it up to a suggestion, and after it."""
    found = re.search(r"must be one of .*?(, got '[^']*'(; did you mean '[^']*'\?)?|$)", message)
    if found is None:
        return message, "", ""
    return message[: found.start()], found[0], message[found.end() :]


def _in_hyphens(text: str) -> str:
    """Options as people type them: those of a list, and the one that is suggested.

    A long list is left out where one of it is suggested, or where a command lists the same.
    """
    listed, hinted, hint = text.partition("; did you mean ")
    listed, comma, got = listed.partition(", got ")
    names = listed.removeprefix("must be one of ").split(", ")
    if len(names) > MOST_LISTED:
        shown = _listing_of(names)
        if hint or shown:
            listed = f"must be one of {len(names)} names"
        if shown and not hint:
            listed += f" (`{shown}` lists them)"
    return listed.replace("_", "-") + comma + got + hinted + hint.replace("_", "-")


def _listing_of(names: Sequence[str]) -> str:
    """The command that lists all these names; empty where there is none."""
    from causal_sgd import studies

    for kind in SYSTEMS.values():
        known = {*itertools.chain.from_iterable(kind.choices().values()), *kind.sweepable()}
        if {name.replace("-", "_") for name in names} <= {name.replace("-", "_") for name in known}:
            return "causal-sgd list --names"
    return "causal-sgd list" if set(names) <= set(studies.NAMES) else ""


def _with_flags(text: str, flags: dict[str, str]) -> str:
    """Text with the flags of fields that it names.

    A name of several words is one wherever it stands. A single word may be a word of the sentence,
    unless it is the subject of a condition.
    """
    long = {name: flag for name, flag in flags.items() if "_" in name}
    text = re.sub(rf"\bexperiment\.{_one_of(flags)}\b", lambda found: flags[found[1]], text)
    if long:
        text = re.sub(
            rf"(?<!--[xy] )(?<![\w'/.-]){_one_of(long)}(?![\w'=/]|\.\w)",
            lambda found: long[found[1]],
            text,
        )
    conditions = rf"\b(where|unless|and|or) {_one_of(flags)} (is|has|are|must)\b"
    return re.sub(conditions, lambda found: f"{found[1]} {flags[found[2]]} {found[3]}", text)


def _one_of(names: Collection[str]) -> str:
    return "(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")"
