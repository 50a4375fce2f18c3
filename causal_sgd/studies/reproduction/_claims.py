"""The claims of a reproduction as plain values for programs: claims.json, claims.csv, `--json`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from causal_sgd import studies
from causal_sgd.studies import Verdict
from causal_sgd.studies.reproduction._running import Outcome

__all__ = ["claims_csv", "claims_table", "described", "exact"]

COLUMNS = (
    "system", "question", "study", "claim", "verdict", "measured", "low", "high", "text", "source",
)  # fmt: skip


class ClaimRow(TypedDict):
    """A claim and its verdict, or a finding, in claims.json."""

    study: str
    name: str
    judged: bool  # False for a finding
    holds: bool | None  # None for a finding
    measured: float | str  # "inf", "-inf" or "nan" where it is not finite
    text: str
    low: float | None  # None for an open end
    high: float | None
    source: str


class ClaimsTable(TypedDict):
    """The contents of claims.json."""

    quick: bool
    seed: int
    claims: list[ClaimRow]
    seconds: dict[str, float]  # study -> wall time of `run`
    constants: dict[str, dict[str, str]]  # study -> the constants that were set
    errors: dict[str, str | None]  # study -> the last line of its error
    skipped: dict[str, str]  # study -> what to install for it to run


def claims_table(outcomes: Sequence[Outcome], *, quick: bool, seed: int) -> ClaimsTable:
    """Claims, verdicts, times and errors as values that JSON can hold."""
    claims: list[ClaimRow] = [
        {
            "study": outcome.name,
            "name": name,
            "judged": verdict.claim.judged,
            "holds": verdict.holds,
            "measured": exact(verdict.measured),
            "text": verdict.claim.text,
            "low": _finite(verdict.claim.low),
            "high": _finite(verdict.claim.high),
            "source": verdict.claim.source,
        }
        for outcome in outcomes
        for name, verdict in outcome.verdicts.items()
    ]
    times = {
        outcome.name: outcome.record.seconds for outcome in outcomes if outcome.record is not None
    }
    errors = {outcome.name: outcome.problem for outcome in outcomes if outcome.error is not None}
    skipped = {outcome.name: outcome.skipped for outcome in outcomes if outcome.skipped}
    return {
        "quick": quick,
        "seed": seed,
        "claims": claims,
        "seconds": times,
        "constants": {one.name: _set(one) for one in outcomes if one.constants},
        "errors": errors,
        "skipped": skipped,
    }


def described(
    outcomes: Sequence[Outcome], out: Path, *, quick: bool, seed: int
) -> dict[str, object]:
    """A reproduction as values that JSON can hold: verdicts, files and errors of every study.

    Args:
        outcomes: of the studies that have run.
        out: the folder of the report.
        quick: their size.
        seed: the root of all randomness.
    """
    judged = [verdict for outcome in outcomes for verdict in outcome.judged.values()]
    return {
        "quick": quick,
        "seed": seed,
        "studies": [_described(outcome) for outcome in outcomes],
        "totals": {
            "studies": len(outcomes),
            "claims": len(judged),
            "holding": sum(bool(verdict.holds) for verdict in judged),
            "findings": sum(len(outcome.findings) for outcome in outcomes),
            "errors": sum(outcome.error is not None for outcome in outcomes),
            "skipped": sum(bool(outcome.skipped) for outcome in outcomes),
            "seconds": sum(outcome.record.seconds for outcome in outcomes if outcome.record),
        },
        "paths": {"report": str(out / "report.html"), "claims": str(out / "claims.json")},
    }


def _described(outcome: Outcome) -> dict[str, object]:
    claims = [
        {
            "name": name,
            "text": verdict.claim.text,
            "interval": verdict.claim.interval,
            "low": _finite(verdict.claim.low),
            "high": _finite(verdict.claim.high),
            "measured": exact(verdict.measured),
            "holds": verdict.holds,
            "source": verdict.claim.source,
        }
        for name, verdict in outcome.judged.items()
    ]
    findings = [
        {"name": name, "text": verdict.claim.text, "measured": exact(verdict.measured)}
        for name, verdict in outcome.findings.items()
    ]
    return {
        "name": outcome.name,
        "system": studies.system_of(outcome.name),
        "question": studies.question_of(outcome.name),
        "title": outcome.title,
        "constants": _set(outcome),
        "claims": claims,
        "findings": findings,
        "paths": {kind: str(path) for kind, path in outcome.paths.items()},
        "seconds": None if outcome.record is None else outcome.record.seconds,
        "reused": outcome.reused,
        "outdated": list(outcome.outdated),
        "notes": list(outcome.notes),
        "error": outcome.problem,
        "skipped": outcome.skipped or None,
    }


def _set(outcome: Outcome) -> dict[str, str]:
    return {name: changed.value for name, changed in outcome.constants.items()}


def claims_csv(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Claims and findings as a table: a line for each measured number, at full precision.

    The ends of an open interval are empty, and so are those of a finding.

    Args:
        verdicts: study -> short name of the claim -> verdict.
    """
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(COLUMNS)
    for group in studies.grouped(verdicts):
        for name in group.names:
            for short, one in verdicts[name].items():
                claim = one.claim
                verdict = {True: "holds", False: "fails", None: "finding"}[one.holds]
                bounds = _finite(claim.low), _finite(claim.high)  # None is written as nothing
                row = (name, short, verdict, one.measured, *bounds, claim.text, claim.source)
                table.writerow((group.system, group.question, *row))
    return stream.getvalue()


def exact(value: float) -> float | str:
    """A finite number itself, another one by name."""
    return value if math.isfinite(value) else str(value)


def _finite(bound: float) -> float | None:
    """The end of an interval, None for an open one."""
    return bound if math.isfinite(bound) else None
