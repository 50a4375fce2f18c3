"""Run studies one after another: what is kept is used, what is missing is computed and kept, and what fails is told."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_sgd import studies
from causal_sgd.studies import Study, Verdict
from causal_sgd.studies.reproduction import _cache
from causal_sgd.studies.reproduction._cache import Origin, Record
from causal_sgd.studies.reproduction._drawings import Drawing, draw
from causal_sgd.studies.reproduction._settings import Data, Settings, data_of, settings_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Outcome", "outcomes", "pending"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one study."""

    name: str
    title: str = ""
    finding: str = ""
    """The rest of the study's docstring."""
    computed: str = ""
    """What was computed, in words."""
    verdicts: Mapping[str, Verdict] = dataclasses.field(default_factory=dict)
    """By the claim's short name; empty where the study failed before it measured anything."""
    drawing: Drawing | None = None
    settings: Sequence[Settings] = ()
    data: Sequence[Data] = ()
    record: Record | None = None
    """What the results were computed from, by what and in what time."""
    reused: bool = False
    """Whether the results were there before."""
    outdated: Sequence[str] = ()
    """How the results that were there differ from those that would be computed now."""
    error: str | None = None
    """The traceback of what the study raised."""

    @property
    def failed(self) -> dict[str, Verdict]:
        """The claims that do not hold."""
        return {name: verdict for name, verdict in self.verdicts.items() if not verdict.holds}

    @property
    def problem(self) -> str | None:
        """The last line of the error."""
        return self.error.strip().splitlines()[-1] if self.error else None


def outcomes(
    names: Sequence[str],
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    fresh: bool = False,
    redraw: bool = False,
    progress: bool | None = None,
    begin: Callable[[str, int, int], None] = lambda name, place, count: None,
) -> Iterator[Outcome]:
    """Run studies, one at a time; what one of them raises is part of its outcome.

    Figures go to `out` (.png and .pdf), results to the folder `results` in it. Claims and figures always come from results
    that were read back, so that it makes no difference whether they had been kept.

    Args:
        names: of the studies.
        out: the folder for everything.
        quick: a reduced size.
        seed: root of all randomness.
        fresh: whether to compute anew what is kept.
        redraw: whether to compute nothing: claims and figures from what is kept, even if it is outdated.
        progress: as for `sweep`.
        begin: called with the name of a study, its place among them, from 1 on, and their number before it is simulated.
    """
    for place, name in enumerate(names, 1):
        begun: dict[str, Any] = {"name": name}
        try:
            study = studies.load(name)
            begun |= _words(study)
            found = _found(name, out, quick=quick, seed=seed, fresh=fresh, redraw=redraw)
            if "datasets" not in found:
                begin(name, place, len(names))
                found |= _computed(study, name, out, quick=quick, seed=seed, progress=progress)
            begun |= found
            data: Mapping[str, xr.Dataset] = begun.pop("datasets")
            begun["data"] = data_of(data)
            begun["verdicts"] = dict(zip(study.CLAIMS, studies.verdicts(study, data), strict=True))
            begun["drawing"] = draw(study, data, out / name)
        except Exception:
            begun.pop("datasets", None)
            begun["error"] = traceback.format_exc()
        yield Outcome(**begun)


def pending(names: Sequence[str], out: Path, *, quick: bool, seed: int) -> list[str]:
    """Those of the studies whose results are not there, or are outdated."""
    found = []
    for name in names:
        record = _cache.find(_cache.folder(out, name, quick=quick, seed=seed))
        try:
            outdated = record is None or record.origin.differences(
                Origin.now(name, quick=quick, seed=seed)
            )
        except Exception:  # told when it is its turn
            outdated = True
        if outdated:
            found.append(name)
    return found


def _words(study: Study) -> dict[str, Any]:
    first, _, rest = inspect.cleandoc(study.__doc__ or "").partition("\n")
    return {
        "title": first,
        "finding": rest.strip(),
        "computed": inspect.cleandoc(study.run.__doc__ or ""),
        "settings": settings_of(study),
    }


def _found(
    name: str, out: Path, *, quick: bool, seed: int, fresh: bool, redraw: bool
) -> dict[str, Any]:
    """What is kept of a study, with its datasets if they are to be used."""
    path = _cache.folder(out, name, quick=quick, seed=seed)
    record = None if fresh else _cache.find(path)
    outdated = (
        []
        if record is None
        else record.origin.differences(Origin.now(name, quick=quick, seed=seed))
    )
    if record is not None and (redraw or not outdated):
        try:
            data = _cache.load(path, record)
        except (OSError, ValueError) as error:
            outdated = [str(error)]
        else:
            return {"datasets": data, "record": record, "reused": True, "outdated": outdated}
    if redraw:
        raise ValueError(
            f"{path} must hold results to redraw, got {outdated[0] if outdated else 'nothing: run it without redraw first'}"
        )
    return {"outdated": outdated}


def _computed(
    study: Study, name: str, out: Path, *, quick: bool, seed: int, progress: bool | None
) -> dict[str, Any]:
    """The datasets of a study, simulated, kept and read back."""
    path = _cache.folder(out, name, quick=quick, seed=seed)
    origin = Origin.now(name, quick=quick, seed=seed)
    _import_ahead()
    start = time.perf_counter()
    data = study.run(quick=quick, key=seed, progress=progress)
    record = _cache.keep(
        path,
        data,
        origin=origin,
        environment=_environment(),
        seconds=round(time.perf_counter() - start, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return {"datasets": _cache.load(path, record), "record": record}


@functools.cache  # once is enough
def _import_ahead() -> None:
    """Import what labels and draws results while XLA compiles, which leaves Python idle; before, tracing needs it."""
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


def _environment() -> dict[str, Any]:
    import jax

    from causal_sgd.sweeps import _machine

    return _machine.environment(jax.devices()[0]) | {"cores": _machine.cores()}
