"""The results of a reproduction as plain values for programs, and as one page for people.

The page needs no network and no scripts: it contains its figures, and a content security policy
forbids everything else. Every measured number stands in the page at full precision (`<data
value=...>`), as in claims.json.
"""

from __future__ import annotations

import functools
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from causal_sgd import studies
from causal_sgd.studies import Verdict
from causal_sgd.studies.reproduction._cache import Environment
from causal_sgd.studies.reproduction._running import Outcome
from causal_sgd.studies.reproduction._times import duration, machine_of

if TYPE_CHECKING:
    import jinja2

__all__ = ["claims_table", "described", "exact", "report"]

MINUS = "\N{MINUS SIGN}"


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
        "claims": claims,
        "findings": findings,
        "paths": {kind: str(path) for kind, path in outcome.paths.items()},
        "seconds": None if outcome.record is None else outcome.record.seconds,
        "reused": outcome.reused,
        "outdated": list(outcome.outdated),
        "error": outcome.problem,
        "skipped": outcome.skipped or None,
    }


def report(
    outcomes: Sequence[Outcome], names: Sequence[str], *, quick: bool, seed: int, created: str
) -> str:
    """Render the page.

    Args:
        outcomes: of the studies that have run.
        names: of all requested studies.
        quick: their size.
        seed: the root of all randomness.
        created: the time, as displayed.
    """
    finished = {outcome.name for outcome in outcomes}
    judged = [verdict for outcome in outcomes for verdict in outcome.judged.values()]
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    environments: list[Environment] = []
    for record in records:
        if record.environment not in environments:
            environments.append(record.environment)
    return _template().render(
        outcomes=outcomes,
        failing=[outcome for outcome in outcomes if outcome.failed],
        broken=[outcome for outcome in outcomes if outcome.error is not None],
        missing=[name for name in names if name not in finished],
        skipped=[outcome for outcome in outcomes if outcome.skipped],
        groups=_groups(outcomes, names),
        claims=len(judged),
        holding=sum(bool(verdict.holds) for verdict in judged),
        findings=sum(len(outcome.findings) for outcome in outcomes),
        seconds=sum(record.seconds for record in records),
        environments=environments,
        quick=quick,
        seed=seed,
        created=created,
        command=_command(names, quick=quick, seed=seed),
        command_of=lambda name: _command([name], quick=quick, seed=seed),
    )


class Group(NamedTuple):
    """The studies that answer one question, in the table of contents."""

    question: str
    outcomes: Sequence[Outcome]
    missing: Sequence[str]


def _groups(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[Group]:
    """The requested studies by question, in the order of the questions."""
    groups = []
    finished = {outcome.name for outcome in outcomes}
    for question, members in studies.QUESTIONS.items():
        own = [outcome for outcome in outcomes if outcome.name in members]
        missing = [name for name in names if name in members and name not in finished]
        if own or missing:
            groups.append(Group(question, own, missing))
    return groups


def exact(value: float) -> float | str:
    """A finite number itself, another one by name."""
    return value if math.isfinite(value) else str(value)


def _finite(bound: float) -> float | None:
    """The end of an interval, None for an open one."""
    return bound if math.isfinite(bound) else None


@functools.cache
def _template() -> jinja2.Template:
    import jinja2
    from markdown_it import MarkdownIt

    # Findings contain A* and M_c: paragraphs, lists, tables and code are markup, stars and
    # underscores are not.
    prose = MarkdownIt("zero").enable(["list", "table", "code", "fence", "backticks"])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("causal_sgd.studies.reproduction"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prose": prose.render,
        "number": _number,
        "exact": exact,
        "gauge": _gauge,
        "duration": duration,
        "machine": machine_of,
        "value": _value,
    }
    return environment.get_template("report.html")


def _command(names: Sequence[str], *, quick: bool, seed: int) -> str:
    chosen = list(names)
    if tuple(names) == studies.NAMES:
        chosen = ["--all"]
    elif tuple(names) == studies.CORE:
        chosen = []
    size, root = ["--quick"] if quick else [], ["--seed", str(seed)] if seed else []
    return shlex.join(["causal-sgd", "reproduce", *chosen, *size, *root])


def _number(value: float) -> str:
    """Four digits, with typographic signs."""
    if not math.isfinite(value):
        return {"inf": "∞", "-inf": f"{MINUS}∞"}.get(str(value), "not a number")
    return f"{value:.4g}".replace("-", MINUS)


def _gauge(verdict: Verdict) -> dict[str, float | None]:
    """Start and width of the interval and place of the number, in per cent of a strip.

    The place is None for NaN.
    """
    low, high, value = verdict.claim.low, verdict.claim.high, verdict.measured
    if math.isfinite(low) and math.isfinite(high):
        start, end = 25.0, 75.0
        place = 25 + 50 * (value - low) / ((high - low) or max(abs(low), 1) * 1e-3)
    else:  # with an open end, distances from the closed one are compressed
        bound, sign = (low, 1) if math.isfinite(low) else (high, -1)
        distance = sign * (value - bound) / (abs(bound) or 1)
        share = 1.0 if math.isinf(distance) else abs(distance) / (1 + abs(distance))
        place = 25 + (math.copysign(share, distance) * (72 if distance > 0 else 23))
        start, end = 25.0, 100.0
        if sign < 0:
            start, end, place = 0.0, 75.0, 100 - place
    return {
        "start": start,
        "width": end - start,
        "place": None if math.isnan(value) else min(max(place, 2), 98),
    }


def _value(value: object) -> str:
    """A setting as Python writes it, without quotes around a string."""
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)
