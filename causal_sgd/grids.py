"""Which runs a sweep is made of: axes of parameters, and seeds."""

from __future__ import annotations

import collections
import difflib
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks

__all__ = ["Grid", "Zipped", "zipped"]


class Zipped(NamedTuple):
    """An axis along which several parameters change together; made by `zipped`."""

    values: Mapping[str, np.ndarray]


def zipped(**values: Any) -> Zipped:
    """An axis along which several parameters change together.

    Args:
        **values: parameter name -> values, all of one length.

    >>> axis = zipped(learning_rate=[0.1, 0.05], batch_size=[100, 200])
    """
    arrays = {name: axis_values(name, array) for name, array in values.items()}
    sizes = {name: len(array) for name, array in arrays.items()}
    if not arrays or len(set(sizes.values())) != 1:
        raise ValueError(f"zipped parameters must have one length, got {sizes}")
    return Zipped(arrays)


class Grid(NamedTuple):
    """The runs of a sweep, laid out flat: axes in order, seeds last."""

    axes: Mapping[str, Mapping[str, np.ndarray]]  # dimension -> parameter -> values
    seeds: np.ndarray  # [S]

    @classmethod
    def make(cls, cell: Callable[..., Any], axes: Mapping[str, Any], seeds: int | Sequence[int]) -> Grid:
        """The grid of `sweep`'s arguments; a ValueError says what is wrong with them."""
        named: dict[str, Mapping[str, np.ndarray]] = {}
        for name, axis in axes.items():
            named[name] = axis.values if isinstance(axis, Zipped) else {name: axis_values(name, axis)}
        parameters = list(itertools.chain.from_iterable(named.values()))
        twice = [name for name, count in collections.Counter(parameters).items() if count > 1]
        if twice:
            raise ValueError(f"axes must name a parameter once, got {twice[0]!r} more than once")
        reserved = {"seed", "step"} & set(named)
        if reserved:
            raise ValueError(f"axes must not be called {sorted(reserved)[0]!r}: the results have such a dimension")
        _check_parameters(cell, parameters)
        if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool):
            indices = np.arange(checks.integer("seeds", seeds))
        else:
            indices = np.asarray(list(seeds) if isinstance(seeds, range) else seeds)
            if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu" or (indices < 0).any():
                raise ValueError(f"seeds must be a number of seeds or a list of seed indices, got {seeds!r}")
            if len(np.unique(indices)) < len(indices):
                raise ValueError(f"seeds must be different, got {seeds!r}")
        return cls(named, indices.astype(np.int64))

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that vary."""
        return tuple(itertools.chain.from_iterable(self.axes.values()))

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis, then the number of seeds."""
        sizes = (len(next(iter(values.values()))) for values in self.axes.values())
        return (*sizes, len(self.seeds))

    @property
    def size(self) -> int:
        """The number of runs."""
        return int(np.prod(self.shape))

    def runs(self, flat: np.ndarray) -> tuple[np.ndarray, ...]:
        """Seed indices and parameter values of some runs, each [len(flat)]."""
        *places, seed = np.unravel_index(flat, self.shape)
        columns = [
            _as_jax(values)[place]
            for place, parameters in zip(places, self.axes.values(), strict=True)
            for values in parameters.values()
        ]
        return (self.seeds[seed].astype(np.uint32), *columns)

    def corners(self) -> list[dict[str, Any]]:
        """The first point, and it again with each parameter at its least and its greatest value."""
        first = {name: values[0] for axis in self.axes.values() for name, values in axis.items()}
        points = [first]
        for axis in self.axes.values():
            for values in axis.values():
                ends = int(np.argmin(values)), int(np.argmax(values))
                points += [first | {name: column[end] for name, column in axis.items()} for end in ends]
        unique = {tuple(point.items()): point for point in points}
        return [{name: value.item() for name, value in point.items()} for point in unique.values()]


def axis_values(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"axis {name!r} must be a non-empty list of finite numbers, got {values!r}")
    return array


def _as_jax(values: np.ndarray) -> np.ndarray:
    kind = jnp.result_type(float) if values.dtype.kind == "f" else jnp.int32
    return values.astype(kind)


def _check_parameters(cell: Callable[..., Any], names: Sequence[str]) -> None:
    """The axes must be keyword parameters of the cell, and cover those without a default."""
    parameters = list(inspect.signature(cell).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"axes must be parameters of the cell ({', '.join(known) or 'none'}), got {name!r}{hint}")
    missing = [p.name for p in parameters if p.default is p.empty and p.name in known and p.name not in names]
    if missing:
        raise ValueError(f"axes must cover the cell's parameters without a default, {missing[0]!r} is missing")
