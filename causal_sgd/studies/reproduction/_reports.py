"""The results of a reproduction as one page for people, beside its figures and tables.

The page needs no network and can be opened from a disk. It refers to the figures and tables in its
folder; a content security policy admits those images and the script of the search box, and forbids
everything else. Every measured number stands in the page at full precision (`<data value=...>`), as
in claims.json.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from causal_sgd import studies
from causal_sgd.studies._selection import Wanted, name_of, words_of
from causal_sgd.studies.reproduction._cache import Environment
from causal_sgd.studies.reproduction._claims import exact
from causal_sgd.studies.reproduction._formats import gauge, number, setting, size
from causal_sgd.studies.reproduction._running import Outcome
from causal_sgd.studies.reproduction._times import duration, machine_of

if TYPE_CHECKING:
    import jinja2

__all__ = ["report"]

TEMPLATES = Path(__file__).with_name("templates")
FILES = {
    "csv": "plotted numbers (CSV)",
    "png": "figure (PNG)",
    "pdf": "figure (PDF)",
    "results": "all results (netCDF)",
}
"""What a study leaves in the folder of the report, in the order of its links."""


def report(
    outcomes: Sequence[Outcome], wanted: Sequence[Wanted], *, quick: bool, seed: int, created: str
) -> str:
    """Render the page, to be saved in the folder that has the figures and tables.

    Args:
        outcomes: of the studies that have run.
        wanted: all requested studies.
        quick: their size.
        seed: the root of all randomness.
        created: the time, as displayed.
    """
    names = [name_of(one) for one in wanted]
    asked: dict[str, Wanted] = dict(zip(names, wanted, strict=True))
    finished = {outcome.name for outcome in outcomes}
    judged = [verdict for outcome in outcomes for verdict in outcome.judged.values()]
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    environments: list[Environment] = []
    for record in records:
        if record.environment not in environments:
            environments.append(record.environment)
    groups = _groups(outcomes, names)
    script = (TEMPLATES / "report.js").read_text("utf-8")
    return _template().render(
        outcomes=outcomes,
        failing=[outcome for group in groups for outcome in group.outcomes if outcome.failed],
        broken=[outcome for outcome in outcomes if outcome.error is not None],
        missing=[name for name in names if name not in finished],
        skipped=[outcome for outcome in outcomes if outcome.skipped],
        outdated=[outcome for outcome in outcomes if outcome.outdated and outcome.reused],
        groups=groups,
        claims=len(judged),
        holding=sum(bool(verdict.holds) for verdict in judged),
        findings=sum(len(outcome.findings) for outcome in outcomes),
        seconds=sum(record.seconds for record in records),
        environments=environments,
        quick=quick,
        seed=seed,
        created=created,
        command=_command(wanted, quick=quick, seed=seed),
        command_of=lambda name: _command([asked[name]], quick=quick, seed=seed),
        files_of=_files,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


class Group(NamedTuple):
    """The studies of a system that answer one question."""

    identifier: str
    title: str
    outcomes: Sequence[Outcome]
    missing: Sequence[str]

    @property
    def bad(self) -> int:
        """The number of studies with claims that fail, or that stopped."""
        return sum(bool(outcome.failed or outcome.error) for outcome in self.outcomes)


def _groups(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[Group]:
    """The requested studies, as `causal-sgd list` groups them."""
    done = {outcome.name: outcome for outcome in outcomes}
    return [
        Group(
            f"group-{place}",
            group.title,
            [done[name] for name in group.names if name in done],
            [name for name in group.names if name not in done],
        )
        for place, group in enumerate(studies.grouped([*names, *done]), 1)
    ]


class File(NamedTuple):
    """A link to what a study left in the folder of the report."""

    label: str
    path: str  # relative to that folder, with forward slashes
    size: str  # empty for a folder


def _files(outcome: Outcome) -> Iterator[File]:
    paths: Mapping[str, Path] = outcome.paths
    beside = next((paths[kind].parent for kind in ("csv", "png") if kind in paths), None)
    for kind, label in FILES.items():
        if beside is None or kind not in paths:
            continue
        path = paths[kind]
        weight = size(path.stat().st_size) if path.is_file() else ""
        yield File(label, Path(os.path.relpath(path, beside)).as_posix(), weight)


@functools.cache
def _template() -> jinja2.Template:
    import jinja2
    from markdown_it import MarkdownIt

    # Findings contain A* and M_c: paragraphs, lists, tables and code are markup, stars and
    # underscores are not.
    prose = MarkdownIt("zero").enable(["list", "table", "code", "fence", "backticks"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prose": prose.render,
        "number": number,
        "exact": exact,
        "gauge": gauge,
        "duration": duration,
        "machine": machine_of,
        "value": setting,
    }
    return environment.get_template("report.html")


def _command(wanted: Sequence[Wanted], *, quick: bool, seed: int) -> str:
    chosen = words_of(wanted)
    if tuple(chosen) == studies.NAMES:
        chosen = ["--all"]
    elif tuple(chosen) == studies.CORE:
        chosen = []
    words, root = ["--quick"] if quick else [], ["--seed", str(seed)] if seed else []
    return shlex.join(["causal-sgd", "reproduce", *chosen, *words, *root])
