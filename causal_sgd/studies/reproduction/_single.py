"""One study, run from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causal_sgd import checks, studies
from causal_sgd.studies import Reproduction
from causal_sgd.studies._selection import Selected
from causal_sgd.studies.reproduction import _cache
from causal_sgd.studies.reproduction._drawings import drawn
from causal_sgd.studies.reproduction._running import computed, derived, stored

__all__ = ["reproduce"]


def reproduce(
    selected: Selected,
    out: Path,
    *,
    quick: bool,
    seed: int,
    fresh: bool,
    progress: bool | None,
) -> Reproduction:
    """Run a study or reuse its results, write its files, and return what it finds.

    Raises:
        ValueError: if packages that the study needs are not installed.
        Exception: whatever the study raises.
    """
    out = checks.path("out", out)
    study, lacking = selected.study, studies.lacking(selected.study)
    saved, _ = stored(
        selected, out, quick=quick, seed=seed, fresh=fresh, redraw=False, needed=not lacking
    )
    if saved is None and lacking:
        raise ValueError(f"{selected.name} {lacking}")
    results = saved or computed(selected, out, quick=quick, seed=seed, progress=progress)
    paths = {"results": _cache.folder(out, selected, quick=quick, seed=seed)}
    fields: dict[str, Any] = {}
    for new in derived(study, results.datasets, paths, out / selected.name):
        fields |= new
    return Reproduction(
        name=selected.name,
        data=results.datasets,
        verdicts=fields["verdicts"],
        figure=drawn(study, results.datasets),
        paths=fields["paths"],
        reused=saved is not None,
    )
