"""Names of results: parameters, metrics and methods must not take each other's. Imports no jax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["check_axes", "check_dim", "check_files", "check_metrics"]

RESULTS = ("seed", "step", "done", "diverged_at", "status")
"""Coordinates and variables of every dataset and store."""

Axes = Mapping[str, Mapping[str, object]]
"""Dimension -> parameter -> values."""


def check_axes(axes: Axes) -> None:
    """Refuse axes or parameters with names that the results of every sweep use.

    Raises:
        ValueError: for such a name, or one that is no name.
    """
    for dim, parameters in axes.items():
        for name in (dim, *parameters):
            _check_text("axes", name)
            if name in RESULTS:
                raise ValueError(
                    f"axes must not be called {name!r}: the results have something of that name"
                )
        for other, others in axes.items():
            if other != dim and dim in others:
                raise ValueError(
                    f"axes must not be called {dim!r}, which is a parameter along {other!r}"
                )


def check_metrics(shapes: Mapping[str, Sequence[int]], axes: Axes) -> None:
    """Refuse metrics with names that the results use for something else.

    Args:
        shapes: metric -> shape of a run's values, [F, ...].
        axes: of the sweep.

    Raises:
        ValueError: for such a name, or one that is no name.
    """
    taken = dict.fromkeys(RESULTS, "the results have something of that name")
    taken |= dict.fromkeys(_of_axes(axes), "it is a parameter or an axis")
    for name in shapes:
        _check_text("metrics", name)
    inner = _inner(shapes)
    taken |= {dim: f"it is a dimension of {name!r}" for dim, name in inner.items()}
    for name in shapes:
        if name in taken:
            raise ValueError(f"metrics must not be called {name!r}: {taken[name]}")
    for dim in inner.keys() & _of_axes(axes):
        raise ValueError(
            f"metrics must not be called {inner[dim]!r}, because the axis {dim!r} has the name of "
            "one of its dimensions"
        )


def check_dim(dim: str, axes: Axes, metrics: Iterable[Mapping[str, Sequence[int]]]) -> None:
    """Refuse a dimension of methods with a name that the results use.

    Args:
        dim: the name.
        axes: of the sweeps.
        metrics: of each sweep, metric -> shape of a run's values.

    Raises:
        ValueError: for such a name, or one that is no name.
    """
    _check_text("dim", dim)
    taken = [*RESULTS[:2], *_of_axes(axes), *RESULTS[2:]]
    for shapes in metrics:
        taken += [*shapes, *_inner(shapes)]
    if dim in taken:
        raise ValueError(
            f"dim must not be one of {', '.join(dict.fromkeys(taken))}, which the results have "
            f"already, got {dim!r}"
        )


def check_files(names: Iterable[str]) -> None:
    """Refuse names of cells that are no names of files in one folder.

    Raises:
        ValueError: for such a name.
    """
    for name in names:
        if not name or name.startswith(".") or any(letter in name for letter in "/\\\0"):
            raise ValueError(
                "cells with a store must have names for files, without / or \\ and not beginning "
                f"with a dot, got {name!r}"
            )


def _check_text(argument: str, name: object) -> None:
    if not isinstance(name, str) or not name or "/" in name or "\0" in name:
        raise ValueError(f"{argument} must have names, of text without /, got {name!r}")


def _of_axes(axes: Axes) -> list[str]:
    """The names of axes and their parameters, each once."""
    return list(dict.fromkeys(name for dim, axis in axes.items() for name in (dim, *axis)))


def _inner(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """The dimensions of single values -> their metrics."""
    return {
        f"{name}_{index}": name for name, shape in shapes.items() for index in range(len(shape) - 1)
    }
