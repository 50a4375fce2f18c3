"""Curves on the diagrams of an explorer page, such as theory's boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypedDict

import numpy as np

from causal_sgd import checks
from causal_sgd.figures.explorer._axes import Axis, View
from causal_sgd.figures.explorer._packing import packed

__all__ = ["Curve", "CurveEntry", "Curves", "curve_entries"]


class Curve(NamedTuple):
    """A curve in two axes of a page, which holds at some values of the others."""

    label: str
    x_axis: str  # of `xs`
    y_axis: str  # of `ys`
    xs: np.ndarray  # [n]
    ys: np.ndarray  # [n]
    at: Mapping[str, float | str] = {}  # other axis -> the value for which the curve holds
    dataset: str | None = None  # the dataset for which it holds; None for all


Curves: TypeAlias = Sequence[Curve] | Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
"""Curves, or name of a dataset -> label -> the values in the axes that the page begins with."""


class CurveEntry(TypedDict):
    """A curve for the page's program."""

    label: str
    x: str
    y: str
    xs: str  # float32, [n]
    ys: str
    at: list[list[int]]  # pairs: an axis, and the index of its value


def curve_entries(
    curves: Curves | None,
    axes: Sequence[Axis],
    views: Sequence[View],
    diagram: tuple[str, str | None],
) -> list[CurveEntry]:
    """The curves for the page's program.

    Raises:
        ValueError: if a curve names an unknown axis, dataset or value, or has arrays of different
            lengths.
    """
    if curves is None:
        return []
    if isinstance(curves, Mapping):
        across, up = diagram
        curves = [
            Curve(label, across, str(up), *points, dataset=name)
            for name, by_label in curves.items()
            for label, points in by_label.items()
        ]
    return [entry for curve in curves for entry in _entries(curve, axes, views)]


def _entries(curve: Curve, axes: Sequence[Axis], views: Sequence[View]) -> list[CurveEntry]:
    """One entry for every view of the curve's dataset."""
    names = [axis["name"] for axis in axes]
    checks.choice("the x axis of a curve", curve.x_axis, names)
    others = [name for name in names if name != curve.x_axis]
    checks.choice("the y axis of a curve", curve.y_axis, others)
    xs, ys = (np.asarray(values, float) for values in (curve.xs, curve.ys))
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(
            f"the curve {curve.label!r} must be two arrays of one shape (n,), "
            f"got shapes {[xs.shape, ys.shape]}"
        )
    at = [_place(curve, name, value, axes) for name, value in curve.at.items()]
    places: list[list[list[int]]] = [at]
    if curve.dataset is not None and len(views) > 1:
        places = [
            [[0, index], *at]
            for index, view in enumerate(views)
            if curve.dataset in (view.name, view.origin)
        ]
    elif curve.dataset not in (None, views[0].name):
        places = _named_place(curve, axes)
    if not places:
        known = ", ".join(repr(view.name) for view in views)
        raise ValueError(f"a curve must be of one of the datasets {known}, got {curve.dataset!r}")
    plain = {"label": curve.label, "x": curve.x_axis, "y": curve.y_axis}
    return [
        CurveEntry(**plain, xs=packed(xs), ys=packed(ys), at=place)  # pyright: ignore
        for place in places
    ]


def _place(curve: Curve, name: str, value: float | str, axes: Sequence[Axis]) -> list[int]:
    """The index of an axis and of one of its values."""
    index = [axis["name"] for axis in axes].index(
        checks.choice(f"the axes of the curve {curve.label!r}", name, [a["name"] for a in axes])
    )
    values = axes[index]["values"]
    if value not in values:
        raise ValueError(f"the curve {curve.label!r} must be at a value of {name!r}, got {value!r}")
    return [index, values.index(value)]  # pyright: ignore[reportArgumentType]


def _named_place(curve: Curve, axes: Sequence[Axis]) -> list[list[list[int]]]:
    """The place of a curve that is named after a value of an axis of names."""
    return [
        [[index, axis["values"].index(curve.dataset)]]  # pyright: ignore[reportArgumentType]
        for index, axis in enumerate(axes)
        if curve.dataset in axis["values"]
    ][:1]
