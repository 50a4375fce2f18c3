"""Run studies, one or several at a time: reuse saved results, compute missing ones, and report
failures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from causal_sgd import checks, studies
from causal_sgd.studies import Study, Verdict
from causal_sgd.studies._selection import Changed, Selected, Wanted, current, name_of
from causal_sgd.studies.reproduction import _cache
from causal_sgd.studies.reproduction._cache import Environment, Origin, Record
from causal_sgd.studies.reproduction._drawings import KINDS, Drawing, draw
from causal_sgd.studies.reproduction._settings import Data, Settings, data_of, settings_of
from causal_sgd.studies.reproduction._side_by_side import side_by_side
from causal_sgd.studies.reproduction._tables import write as write_table
from causal_sgd.studies.reproduction._times import Clock, longest_first

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Outcome", "computed", "derived", "outcomes", "pending", "saved", "stored"]

JAX_NOTE = "\n--------------------\nFor simplicity, JAX"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one study."""

    name: str
    title: str = ""
    finding: str = ""
    """The rest of the study's docstring."""
    computed: str = ""
    """The docstring of `run`: what was computed."""
    verdicts: Mapping[str, Verdict] = dataclasses.field(default_factory=dict)
    """By the claim's short name; empty where the study failed before it measured anything."""
    drawing: Drawing | None = None
    paths: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """What was written: the folder `results`, the table (`csv`) and the figure (`png`, `pdf`)."""
    settings: Sequence[Settings] = ()
    data: Sequence[Data] = ()
    record: Record | None = None
    """The provenance of the results."""
    reused: bool = False
    """Whether the results were computed earlier."""
    outdated: Sequence[str] = ()
    """Why the earlier results are stale."""
    notes: Sequence[str] = ()
    """The warnings of its computation, its claims and its figure, each once."""
    error: str | None = None
    """The traceback of an exception that the study raised."""
    constants: Mapping[str, Changed] = dataclasses.field(default_factory=dict)
    """The constants that were set. The intervals of claims were stated for the defaults."""
    skipped: str = ""
    """What to install for the study to run, where packages with its data are missing."""

    @property
    def failed(self) -> dict[str, Verdict]:
        """The claims that do not hold."""
        return {name: verdict for name, verdict in self.judged.items() if not verdict.holds}

    @property
    def judged(self) -> dict[str, Verdict]:
        """The claims, which hold or fail."""
        return {name: one for name, one in self.verdicts.items() if one.claim.judged}

    @property
    def findings(self) -> dict[str, Verdict]:
        """The numbers that are reported and not judged."""
        return {name: one for name, one in self.verdicts.items() if not one.claim.judged}

    @property
    def problem(self) -> str | None:
        """The last line of the error, before the note on its traceback that jax may add."""
        lines = (self.error or "").partition(JAX_NOTE)[0].strip().splitlines()
        return lines[-1] if lines else None


def outcomes(
    wanted: Sequence[Wanted],
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    fresh: bool = False,
    redraw: bool = False,
    progress: bool | None = None,
    begin: Callable[[str, int, int], None] | None = None,
    jobs: int = 1,
) -> Iterator[Outcome]:
    """Run studies; an exception of one becomes part of its outcome.

    A study whose packages are not installed (`REQUIRES`) is skipped, unless its results are saved.

    Figures (.png and .pdf) and tables of the plotted numbers (.csv) go to `out`, results to its
    folder `results`. Claims, figures and tables always come from results read back from disk,
    whether they were computed now or earlier.

    Args:
        wanted: the names of built-in studies, or selected ones.
        out: the folder for everything.
        quick: a reduced size.
        seed: root of all randomness.
        fresh: compute again even where results are saved.
        redraw: compute nothing; take claims and figures from saved results, even stale ones.
        progress: as for `sweep`; several studies at a time show none.
        begin: called before each simulation with the study's name, its place from 1 and the count.
            It must be a function of a module for several studies at a time, whose processes call
            it.
        jobs: how many studies run at a time. Each has a process of its own; those that take longest
            begin first, and outcomes come as they finish. The numbers do not depend on it.
    """
    out = checks.path("out", out)
    long = wanted if fresh or redraw else pending(wanted, out, quick=quick, seed=seed)
    jobs = min(checks.integer("jobs", jobs), max(len(long), 1))
    run = functools.partial(
        _outcome,
        out=out,
        quick=quick,
        seed=seed,
        fresh=fresh,
        redraw=redraw,
        progress=progress if jobs == 1 else False,
        begin=begin,
        count=len(wanted),
        jobs=jobs,
    )
    if jobs == 1:
        yield from map(run, enumerate(wanted, 1))
        return
    ordered = list(enumerate(longest_first(wanted, out, quick=quick), 1))
    for (_, one), outcome in side_by_side(run, ordered, jobs=jobs):
        lost = "RuntimeError: its process was killed; the memory may be too small"
        yield outcome or Outcome(name=name_of(one), error=lost)


def _outcome(
    numbered: tuple[int, Wanted],
    *,
    out: Path,
    quick: bool,
    seed: int,
    fresh: bool,
    redraw: bool,
    progress: bool | None,
    begin: Callable[[str, int, int], None] | None,
    count: int,
    jobs: int,
) -> Outcome:
    """The outcome of one study of `count`, with its place; the others are as in `outcomes`."""
    place, one = numbered
    name = name_of(one)
    outcome = Outcome(name=name)
    notes: list[str] = []
    try:
        selected = current(one)
        study = selected.study
        outcome = _described(outcome, selected)
        lacking = studies.lacking(study)
        needed = not lacking
        results, outdated = stored(
            selected, out, quick=quick, seed=seed, fresh=fresh, redraw=redraw, needed=needed
        )
        reused = results is not None
        if results is None and lacking:
            return dataclasses.replace(outcome, skipped=lacking)
        if results is None:
            if begin is not None:
                begin(name, place, count)
            with _noted(notes):
                results = computed(
                    selected, out, quick=quick, seed=seed, progress=progress, jobs=jobs
                )
        outcome = dataclasses.replace(
            outcome,
            data=data_of(results.datasets),
            paths={"results": _cache.folder(out, name, quick=quick, seed=seed)},
            record=results.record,
            reused=reused,
            outdated=outdated,
        )
        with _noted(notes):
            for fields in derived(study, results.datasets, outcome.paths, out / name):
                outcome = dataclasses.replace(outcome, **fields)
    except Exception:
        outcome = dataclasses.replace(outcome, error=traceback.format_exc())
    return dataclasses.replace(outcome, notes=notes)


@contextlib.contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """Collect the texts of warnings instead of printing them."""
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield
        finally:
            texts = [" ".join(str(one.message).split()) for one in caught]
            notes.extend(text for text in dict.fromkeys(texts) if text not in notes)


def derived(
    study: Study, data: Mapping[str, xr.Dataset], paths: Mapping[str, Path], path: Path
) -> Iterator[Mapping[str, Any]]:
    """The fields that follow from results, one after another, so that an exception loses none of
    those before it.
    """
    yield {"verdicts": dict(zip(study.CLAIMS, studies.verdicts(study, data), strict=True))}
    paths = {**paths, "csv": write_table(study, data, path)}
    yield {"paths": paths}
    drawing = draw(study, data, path)
    files = {kind: path.with_name(f"{path.name}.{kind}") for kind in KINDS if drawing is not None}
    yield {"paths": paths | files, "drawing": drawing}


def pending(wanted: Sequence[Wanted], out: Path, *, quick: bool, seed: int) -> list[Wanted]:
    """The studies whose results are missing or stale."""
    missing = []
    for one in wanted:
        record = _cache.lookup(_cache.folder(out, one, quick=quick, seed=seed))
        try:
            now = Origin.now(one, quick=quick, seed=seed)
            outdated = record is None or record.origin.differences(now)
        except Exception:  # reported when the study runs
            outdated = True
        if outdated:
            missing.append(one)
    return missing


def saved(out: Path, *, quick: bool, seed: int) -> tuple[str, ...]:
    """The studies of the package that have results in a folder, outdated or not."""
    return tuple(
        name
        for name in studies.NAMES
        if _cache.lookup(_cache.folder(out, name, quick=quick, seed=seed)) is not None
    )


class _Results(NamedTuple):
    """The datasets of a study, read from disk, and their provenance."""

    datasets: Mapping[str, xr.Dataset]
    record: Record


def _described(outcome: Outcome, selected: Selected) -> Outcome:
    """The outcome with what the module of its study says."""
    study = selected.study
    first, _, rest = inspect.cleandoc(study.__doc__ or "").partition("\n")
    return dataclasses.replace(
        outcome,
        constants=selected.constants,
        title=first,
        finding=rest.strip(),
        computed=inspect.cleandoc(study.run.__doc__ or ""),
        settings=settings_of(study),
    )


def stored(
    study: Wanted, out: Path, *, quick: bool, seed: int, fresh: bool, redraw: bool, needed: bool
) -> tuple[_Results | None, list[str]]:
    """The saved results of a study, None where they are not usable, and why they are stale.

    Raises:
        ValueError: if there is nothing to redraw, although it is needed.
    """
    path = _cache.folder(out, study, quick=quick, seed=seed)
    record = None if fresh else _cache.lookup(path)
    outdated = []
    if record is not None:
        outdated = record.origin.differences(Origin.now(study, quick=quick, seed=seed))
        if redraw or not outdated:
            try:
                data = _cache.load(path, record)
            except (OSError, ValueError) as error:
                outdated = [str(error)]
            else:
                return _Results(data, record), outdated
    if redraw and needed:
        problem = outdated[0] if outdated else "nothing: run it without redraw first"
        raise ValueError(f"{path} must hold results to redraw, got {problem}")
    return None, outdated


def computed(
    selected: Selected, out: Path, *, quick: bool, seed: int, progress: bool | None, jobs: int = 1
) -> _Results:
    """The results of a study, simulated, saved and read back."""
    path = _cache.folder(out, selected, quick=quick, seed=seed)
    origin = Origin.now(selected, quick=quick, seed=seed)
    _import_ahead()
    clock = Clock(jobs)
    data = selected.study.run(quick=quick, key=seed, progress=progress)
    record = _cache.save(
        path,
        data,
        origin=origin,
        environment=_environment(),
        seconds=round(clock.seconds(), 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return _Results(_cache.load(path, record), record)


@functools.cache  # once is enough
def _import_ahead() -> None:
    """Import what labels and draws results while XLA compiles, which leaves Python idle; before,
    tracing needs it.
    """
    from causal_sgd.sweeps import _programs

    def load() -> None:
        _programs.waiting.wait()  # for ever where nothing is compiled
        for module in (
            "causal_sgd.sweeps._datasets",
            "matplotlib.pyplot",
            "causal_sgd.figures._plots",
        ):
            importlib.import_module(module)

    threading.Thread(target=load, daemon=True).start()


def _environment() -> Environment:
    import jax

    from causal_sgd.sweeps import _machine

    return _machine.environment(jax.devices()[0]) | {"cores": _machine.cores()}
