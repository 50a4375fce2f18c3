"""The numbers of an explorer page: quantiles of every cell and thinned trajectories.

Imports no jax. Arrays are encoded as base64 of little-endian float32, which a browser reads without
parsing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt
import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis import divergences, final, metric_names, nan_quantiles
from causal_sgd.analysis._summaries import valid
from causal_sgd.figures._tables import is_geometric
from causal_sgd.figures._theme import NAMES

__all__ = [
    "LEVELS",
    "MOST_NUMBERS",
    "Curves",
    "Payload",
    "axes_of",
    "packed",
    "payload",
    "plain_name",
]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The quantiles over seeds that a page can show."""
BAND = (0, 2, 4)  # indices of the levels that trajectories show: 10 %, median, 90 %
MOST_NUMBERS = 4_000_000
"""Limit on the numbers that trajectories take on a page (16 MB); beyond it frames are thinned."""
SYMBOLS = {
    r"\eta": "η",
    r"\alpha": "α",  # noqa: RUF001
    r"\mu": "μ",
    r"\beta": "β",
    r"\sigma_y": "σᵧ",
    r"\|": "‖",
    r"^\top": "ᵀ",
    r"^\star": "*",
    r"_\star": "*",
    r"\bar A": "Ā",
    r"U_\perp": "U⊥",
    r"\,": "",
    "_F": "",
    "^2": "²",
    "$": "",
}
"""Plain text for TeX, applied in this order."""

Curves: TypeAlias = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
"""Name of a dataset -> label -> the x and y values of a theory curve."""


class _Metric(TypedDict):
    name: str
    label: str


class _Axis(_Metric):
    values: list[float]
    log: bool


class _Curve(TypedDict):
    label: str
    x: list[float]
    y: list[float]


class _Numbers(TypedDict):
    """One dataset, packed; `*order` stands for the other axes, the vertical and the horizontal."""

    final: str  # quantiles of the last frame, [metrics, levels, *order]
    tracks: str | None  # quantiles of the frames, [metrics, *order, frames, band]
    diverged: str  # fraction of the runs, [*order]
    runs: str  # number of runs, [*order]


class _View(_Numbers):
    name: str


class Payload(TypedDict):
    """The data of the page's program, page.js."""

    axes: list[_Axis]  # horizontal, vertical
    others: list[_Axis]
    metrics: list[_Metric]
    levels: list[float]
    band: list[float]
    steps: list[int] | None  # of the frames; None without trajectories
    recorded: int  # number of frames before they were thinned
    views: list[_View]
    curves: dict[str, list[_Curve]]  # name of a view -> its curves


def payload(
    datasets: Mapping[str, xr.Dataset],
    *,
    x: str | None = None,
    y: str | None = None,
    curves: Curves | None = None,
    most_numbers: int = MOST_NUMBERS,
) -> Payload:
    """The data of the page's program, ready for JSON.

    Args:
        datasets: name -> dataset of a sweep over at least two axes, the same for all. A dataset
            with a dim of names (the `variant` of `compare`) counts as one dataset per name.
        x: the horizontal axis; None for the first.
        y: the vertical axis; None for the first of the others.
        curves: name of a dataset -> label -> the x and y values of a theory curve.
        most_numbers: limit on the numbers that trajectories take.

    Raises:
        ValueError: if there is no dataset, a dataset has fewer than two numeric axes, or the
            datasets have different axes or metrics.
    """
    views = _views(datasets)
    first = next(iter(views.values()))
    across, up = axes_of(first, x, y)
    others = [str(dim) for dim in divergences(first).dims if dim not in (across, up, "seed")]
    metrics = [
        name
        for name in metric_names(first)
        if first[name].dims[-1] in ("step", "seed") and first[name].dtype.kind in "biuf"
    ]
    metrics.sort(key=lambda name: name != "spurious_signal")  # the default metric of a diagram
    if not metrics:
        raise ValueError("the datasets must have a metric with one real number per run, got none")
    for name, view in views.items():
        for dim in (across, up, *others):
            if dim not in view.dims or not np.array_equal(view[dim].values, first[dim].values):
                raise ValueError(
                    f"the datasets must have the same axes, got a different {dim!r} in {name!r}"
                )
        if missing := set(metrics) - set(metric_names(view)):
            raise ValueError(
                "the datasets must have the same metrics, "
                f"got no {sorted(missing)[0]!r} in {name!r}"
            )
    order = [*others, up, across]
    num_cells = int(np.prod([first.sizes[dim] for dim in order]))
    frames = _frames(first, len(views) * len(metrics) * num_cells, most_numbers)
    return {
        "axes": [_axis(first, dim) for dim in (across, up)],
        "others": [_axis(first, dim) for dim in others],
        "metrics": [{"name": name, "label": plain_name(name)} for name in metrics],
        "levels": list(LEVELS),
        "band": [LEVELS[index] for index in BAND],
        "steps": None if frames is None else first["step"].values[frames].tolist(),
        "recorded": int(first.sizes.get("step", 1)),
        "views": [
            {"name": name, **_numbers(view, metrics, order, frames)} for name, view in views.items()
        ],
        "curves": {
            name: [_curve(label, *points) for label, points in by_label.items()]
            for name, by_label in (curves or {}).items()
        },
    }


def axes_of(dataset: xr.Dataset, x: str | None, y: str | None) -> tuple[str, str]:
    """The names of the horizontal and the vertical axis of a diagram.

    Raises:
        ValueError: if there are fewer than two numeric axes, one has no values, or a name is
            unknown.
    """
    for dim, size in divergences(dataset).sizes.items():
        if not size:
            raise ValueError(f"a diagram must have values along every axis, got none along {dim!r}")
    axes = [
        str(dim)
        for dim in divergences(dataset).dims
        if dim != "seed" and dataset[dim].dtype.kind in "iuf"
    ]
    if len(axes) < 2:
        hint = ""
        if "point" in axes:
            hint = "; for a refined diagram, use open_results(PATH, unzip=True)"
        raise ValueError(
            f"a diagram must have at least two axes of numbers, got {axes or 'none'}{hint}"
        )
    across = axes[0] if x is None else checks.choice("x", x.replace("-", "_"), axes)
    rest = [axis for axis in axes if axis != across]
    return across, rest[0] if y is None else checks.choice("y", y.replace("-", "_"), rest)


def plain_name(name: str) -> str:
    """The label of a metric or an axis in plain text."""
    words, text = name.replace("_", " "), NAMES.get(name, "")
    for tex, symbol in SYMBOLS.items():
        text = text.replace(tex, symbol)
    if not text:
        return words
    # Labels that are a formula alone are preceded by the name of the metric.
    return text if text[0].isalpha() and text[:2].islower() else f"{words} {text}"


def packed(values: npt.ArrayLike) -> str:
    """Numbers as base64 of little-endian float32; infinite ones become NaN."""
    array = np.asarray(values, "<f4")
    finite = np.where(np.isfinite(array), array, np.float32(np.nan)).astype("<f4")
    return base64.b64encode(finite.tobytes()).decode()


def _curve(label: str, x: np.ndarray, y: np.ndarray) -> _Curve:
    return {
        "label": label,
        "x": np.asarray(x, float).tolist(),
        "y": np.asarray(y, float).tolist(),
    }


def _views(datasets: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The datasets by the names in the menu; a dim of names is split into its values."""
    views: dict[str, xr.Dataset] = {}
    for name, dataset in datasets.items():
        named = [
            dim
            for dim in divergences(dataset).dims
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
    """Evenly spaced indices of as many frames as the page may hold; None for fewer than two.

    The frame of the last step is among them.
    """
    count = dataset.sizes.get("step", 1)
    limit = min(count, most_numbers // max(cells * len(BAND), 1))
    if limit < 2:
        return None
    even = np.linspace(0, count - 1, limit).round().astype(int)
    return np.union1d(even, np.argmax(dataset["step"].values))


def _axis(dataset: xr.Dataset, dim: str) -> _Axis:
    values = dataset[dim].values.astype(float)
    log = is_geometric(np.sort(values))
    return {"name": dim, "label": plain_name(dim), "values": values.tolist(), "log": log}


def _numbers(
    view: xr.Dataset, metrics: Sequence[str], order: Sequence[str], frames: np.ndarray | None
) -> _Numbers:
    """The packed numbers of one dataset."""
    diverged = (view["diverged_at"] >= 0).transpose(*order, "seed")
    done = xr.ones_like(diverged)
    if "done" in view.coords:
        done = view["done"].transpose(*order, "seed")
    levels = np.array(LEVELS)
    quantiles, tracks = [], []
    for metric in metrics:  # one at a time, and only these frames: a lazy store is read here
        shown = final(view[[metric]]) if frames is None else view[[metric]].isel(step=frames)
        shown = shown.load()
        last = valid(view, final(shown)[metric]).transpose(*order, "seed").values
        quantiles.append(np.moveaxis(nan_quantiles(last, levels), -1, 0))
        if frames is not None:
            values = valid(view, shown[metric]).transpose(*order, "step", "seed").values
            tracks.append(nan_quantiles(values, levels[list(BAND)]))
    runs = done.sum("seed")
    return {
        "final": packed(np.stack(quantiles)),
        "tracks": packed(np.stack(tracks)) if tracks else None,
        "diverged": packed(((diverged & done).sum("seed") / runs.where(runs > 0)).values),
        "runs": packed(runs.values),
    }
