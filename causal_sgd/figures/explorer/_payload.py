"""The numbers of an explorer's page: quantiles of every cell, and as much of the trajectories as a page should carry.

Imports no jax. Arrays travel as base64 of little-endian float32, which a browser reads without parsing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis import divergences, final, nan_quantiles, metric_names
from causal_sgd.figures._theme import NAMES

__all__ = ["LEVELS", "MOST_NUMBERS", "axes_of", "packed", "payload", "plain_name"]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The quantiles over seeds that a page can show."""
BAND = (0, 2, 4)  # of the levels, those that trajectories are drawn with
MOST_NUMBERS = 4_000_000
"""Numbers that trajectories may take on a page (16 MB); beyond that frames are left out, evenly."""
SIGNS = {
    r"\eta": "η", r"\alpha": "α", r"\mu": "μ", r"\beta": "β", r"\sigma_y": "σᵧ", r"\|": "‖", r"^\top": "ᵀ",  # noqa: RUF001
    r"^\star": "*", r"_\star": "*", r"\bar A": "Ā", r"U_\perp": "U⊥", r"\,": "", "_F": "", "^2": "²", "$": "",
}  # fmt: skip


def payload(
    datasets: Mapping[str, xr.Dataset],
    *,
    x: str | None = None,
    y: str | None = None,
    curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]] | None = None,
    most_numbers: int = MOST_NUMBERS,
) -> dict[str, Any]:
    """What the page's program reads.

    Args:
        datasets: what to call each -> a sweep's dataset over at least two axes, all over the same. A dataset with a dim of
            names (the `variant` of `compare`) counts as one for each of them.
        x: the horizontal axis; None for the first.
        y: the vertical axis; None for the first other one.
        curves: as the datasets are called -> label -> the x and y values of a curve of theory.
        most_numbers: that trajectories may take.

    Raises:
        ValueError: if there is no dataset, one has fewer than two axes of numbers, or they do not agree in axes or metrics.
    """
    views = _views(datasets)
    first = next(iter(views.values()))
    across, up = axes_of(first, x, y)
    others = [str(dim) for dim in first["diverged_at"].dims if dim not in (across, up, "seed")]
    metrics = [name for name in metric_names(first) if first[name].dims[-1] in ("step", "seed")]
    metrics.sort(
        key=lambda name: name != "spurious_signal"
    )  # what a phase diagram is of, where it is there
    if not metrics:
        raise ValueError("the datasets must have a metric that is one number a run, got none")
    for name, view in views.items():
        for dim in (across, up, *others):
            if dim not in view.dims or not np.array_equal(view[dim].values, first[dim].values):
                raise ValueError(
                    f"the datasets must have the same axes, got another {dim!r} in {name!r}"
                )
        if missing := set(metrics) - set(metric_names(view)):
            raise ValueError(
                f"the datasets must have the same metrics, got none called {sorted(missing)[0]!r} in {name!r}"
            )
    order = [*others, up, across]
    frames = _frames(
        first,
        len(views) * len(metrics) * int(np.prod([first.sizes[dim] for dim in order])),
        most_numbers,
    )
    found = {name: _numbers(view, metrics, order, frames) for name, view in views.items()}
    return {
        "axes": [_axis(first, dim) for dim in (across, up)],
        "others": [_axis(first, dim) for dim in others],
        "metrics": [{"name": name, "label": plain_name(name)} for name in metrics],
        "levels": list(LEVELS),
        "band": [LEVELS[index] for index in BAND],
        "steps": None if frames is None else first["step"].values[frames].tolist(),
        "recorded": int(first.sizes.get("step", 1)),
        "views": [{"name": name, **numbers} for name, numbers in found.items()],
        "curves": {
            name: [{"label": label, "x": np.asarray(a, float).tolist(), "y": np.asarray(b, float).tolist()}
                   for label, (a, b) in of.items()]
            for name, of in (curves or {}).items()
        },
    }  # fmt: skip


def axes_of(dataset: xr.Dataset, x: str | None, y: str | None) -> tuple[str, str]:
    """The two axes of a diagram.

    Raises:
        ValueError: if there are not two of them, or they are not called so.
    """
    axes = [
        str(dim)
        for dim in divergences(dataset).dims
        if dim != "seed" and dataset[dim].dtype.kind in "iuf"
    ]
    if len(axes) < 2:
        hint = (
            "; of a refined diagram, take what `refine` returns (phase --refine --out X.nc)"
            if "point" in axes
            else ""
        )
        raise ValueError(
            f"a diagram must have at least two axes of numbers, got {axes or 'none'}{hint}"
        )
    across = axes[0] if x is None else checks.choice("x", x.replace("-", "_"), axes)
    left = [axis for axis in axes if axis != across]
    return across, left[0] if y is None else checks.choice("y", y.replace("-", "_"), left)


def plain_name(name: str) -> str:
    """What a metric or an axis is called where there is no TeX."""
    words, text = name.replace("_", " "), NAMES.get(name, "")
    for sign, plain in SIGNS.items():
        text = text.replace(sign, plain)
    if not text:
        return words
    return text if text[0].isalpha() and text[:2].islower() else f"{words} {text}"


def packed(values: Any) -> str:
    """Numbers as base64 of little-endian float32; what is not finite becomes NaN."""
    array = np.asarray(values, "<f4")
    return base64.b64encode(
        np.where(np.isfinite(array), array, np.float32(np.nan)).astype("<f4").tobytes()
    ).decode()


def _views(datasets: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """One dataset for each name that can be switched to."""
    views: dict[str, xr.Dataset] = {}
    for name, dataset in datasets.items():
        named = [
            dim
            for dim in dataset["diverged_at"].dims
            if dim in dataset.coords and dataset[dim].dtype.kind in "UO"
        ]
        if not named:
            views[name] = dataset
            continue
        for value in dataset[named[0]].values:
            views[str(value) if len(datasets) == 1 else f"{name}, {value}"] = dataset.sel(
                {named[0]: value}, drop=True
            )
    if not views:
        raise ValueError("datasets must name at least one, got none")
    return views


def _frames(dataset: xr.Dataset, cells: int, most_numbers: int) -> np.ndarray | None:
    """Which frames of the trajectories a page can carry, evenly spread; None where nothing moves."""
    count = dataset.sizes.get("step", 1)
    kept = min(count, most_numbers // max(cells * len(BAND), 1))
    return None if kept < 2 else np.unique(np.linspace(0, count - 1, kept).round().astype(int))


def _axis(dataset: xr.Dataset, dim: str) -> dict[str, Any]:
    values = dataset[dim].values.astype(float)
    steps, ratios = np.diff(values), values[1:] / np.where(values[:-1] == 0, np.nan, values[:-1])
    positive = len(values) > 2 and bool((values > 0).all())
    log = positive and float(np.std(np.log(ratios))) < 0.5 * float(
        np.std(steps) / abs(np.mean(steps))
    )
    return {"name": dim, "label": plain_name(dim), "values": values.tolist(), "log": log}


def _numbers(
    view: xr.Dataset, metrics: Sequence[str], order: Sequence[str], frames: np.ndarray | None
) -> dict[str, Any]:
    """The quantiles of the last frame [metrics, levels, *order], those of the frames, and how many runs diverged."""
    blown = (view["diverged_at"] >= 0).transpose(*order, "seed")
    ran = view["done"].transpose(*order, "seed") if "done" in view.coords else xr.ones_like(blown)
    levels, tracks = [], []
    for metric in metrics:  # one at a time: a store is read when it is looked at
        values = (
            view[metric]
            .transpose(*order, "step", "seed", missing_dims="ignore")
            .where(~blown & ran)
        )
        values = values.where(np.isfinite(values))
        last = final(values.to_dataset(name=metric))[metric].values
        levels.append(np.moveaxis(nan_quantiles(last, np.array(LEVELS)), -1, 0))
        if frames is not None:
            tracks.append(
                nan_quantiles(values.isel(step=frames).values, np.array(LEVELS)[list(BAND)])
            )
    runs = ran.sum("seed")
    return {
        "final": packed(np.stack(levels)),
        "tracks": packed(np.stack(tracks)) if tracks else None,
        "diverged": packed(((blown & ran).sum("seed") / runs.where(runs > 0)).values),
        "runs": packed(runs.values),
    }
