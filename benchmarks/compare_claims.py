"""List the differences between two `claims.json` files of `causal-sgd reproduce`.

Run `python benchmarks/compare_claims.py OLD/claims.json NEW/claims.json`. Claims match by study and
key; values differ where they are not bit for bit equal. The exit status is 1 if a verdict differs
or if one file lacks a claim.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HEADER = (
    "| study | claim | old | new | interval | verdicts | relative change |\n"
    "|---|---|---|---|---|---|---|"
)


class Result(NamedTuple):
    """The outcome of one claim, or a finding."""

    measured: float  # NaN where the study produced no number
    low: float
    high: float
    holds: bool | None  # None for a finding, which is not judged


Results = Mapping[tuple[str, str], Result]


def load(path: Path) -> Results:
    """Read the results of a file, by study and key of the claim.

    Raises:
        ValueError: If the file holds no claims.
    """
    document = json.loads(path.read_text("utf-8"))
    if not document.get("claims"):
        raise ValueError(f"{path} holds no claims")

    def number(value: float | str | None, missing: float = math.nan) -> float:
        return missing if value is None else float(value)

    return {
        (claim["study"], claim["name"]): Result(
            number(claim["measured"]),
            number(claim["low"], -math.inf),
            number(claim["high"], math.inf),
            claim["holds"],
        )
        for claim in document["claims"]
    }


def equal(one: float, other: float) -> bool:
    """Whether two numbers are equal; NaN equals NaN."""
    return one == other or (math.isnan(one) and math.isnan(other))


def row(name: tuple[str, str], old: Result, new: Result) -> str:
    """One line of the table."""
    change = (new.measured - old.measured) / abs(old.measured) if old.measured else math.nan
    interval = f"[{new.low:g}, {new.high:g}]"
    if (old.low, old.high) != (new.low, new.high):
        interval = f"[{old.low:g}, {old.high:g}] -> {interval}"
    words = {True: "holds", False: "fails", None: "finding"}
    verdicts = " -> ".join(words[result.holds] for result in (old, new))
    cells = [*name, f"{old.measured:.9g}", f"{new.measured:.9g}", interval, verdicts]
    return f"| {' | '.join(cells)} | {change:+.2g} |"


def compare(old: Results, new: Results) -> tuple[list[str], bool]:
    """Compare two sets of results.

    Returns:
        The lines to print, and whether all verdicts agree and no claim is missing.
    """
    common = [name for name in old if name in new]
    differing = [name for name in common if not equal(old[name].measured, new[name].measured)]
    intervals = [name for name in common if old[name][1:3] != new[name][1:3]]
    verdicts = [name for name in common if old[name].holds != new[name].holds]
    listed = dict.fromkeys([*differing, *intervals, *verdicts])
    lines = [HEADER, *(row(name, old[name], new[name]) for name in listed), ""] if listed else []
    missing = [("new", name) for name in old if name not in new]
    missing += [("old", name) for name in new if name not in old]
    lines += [f"the {which} file lacks {study}/{key}" for which, (study, key) in missing]
    failing = sum(result.holds is False for result in new.values())
    lines.append(
        f"{len(common)} claims in both: {len(differing)} values, {len(intervals)} intervals and "
        f"{len(verdicts)} verdicts differ; {len(missing)} claims in one file only; "
        f"{failing} claims fail in the new file"
    )
    return lines, not (verdicts or missing)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, metavar="OLD/claims.json")
    parser.add_argument("new", type=Path, metavar="NEW/claims.json")
    options = parser.parse_args(arguments)
    try:
        old, new = load(options.old), load(options.new)
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    lines, agree = compare(old, new)
    print("\n".join(lines))
    return 0 if agree else 1


if __name__ == "__main__":
    raise SystemExit(main())
