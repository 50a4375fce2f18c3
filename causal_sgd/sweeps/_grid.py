"""The runs of a sweep: axes of parameters, and seeds. Imports no jax, for stored results."""

from __future__ import annotations

import collections
import difflib
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from causal_sgd import checks
from causal_sgd.sweeps._names import check_axes

__all__ = [
    "LARGEST_SEED",
    "AxisValues",
    "Columns",
    "Grid",
    "GridDescription",
    "Seeds",
    "Zipped",
    "zipped",
]

Columns = tuple[np.ndarray, ...]
"""The input of B runs: seed indices [B], or [] if all runs have one, then the values [B] of each
parameter of `Grid.names`."""

LARGEST_SEED = 2**32 - 1
RUN_BYTES = 16  # the least that the description of a run takes


class Zipped(NamedTuple):
    """An axis along which several parameters change together; `zipped` makes one."""

    values: Mapping[str, np.ndarray]


Seeds: TypeAlias = int | Sequence[int] | np.ndarray
"""The number of seeds, or their indices."""
AxisValues: TypeAlias = npt.ArrayLike | Zipped
"""The values of one parameter, [n], or of several that change together."""


class GridDescription(TypedDict):
    """A grid as plain values for JSON."""

    axes: dict[str, dict[str, list[float]]]  # dimension -> parameter -> values
    seeds: list[int] | dict[str, list[int]]  # the indices, or "range" -> [first, last + 1]


class _Arguments(TypedDict):
    """The arguments of `sweep` that state the runs."""

    axes: dict[str, AxisValues]
    seeds: np.ndarray


def zipped(**values: npt.ArrayLike) -> Zipped:
    """Make an axis along which several parameters change together.

    Args:
        **values: parameter name -> values, all of the same length.

    Raises:
        ValueError: if the lengths differ, or a parameter has no finite numbers.

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
    def make(
        cls, cell: Callable[..., object], axes: Mapping[str, AxisValues], seeds: Seeds
    ) -> Grid:
        """The grid of `sweep`'s arguments.

        Raises:
            ValueError: for an argument that is not allowed, by name.
        """
        if not callable(cell):
            hint = "; pass what its .cell() returns" if hasattr(cell, "cell") else ""
            raise ValueError(
                "cell must be a function cell(key, *, names...) -> Trace, "
                f"got a {type(cell).__name__}{hint}"
            )
        checks.instance("axes", axes, Mapping, "a mapping of parameter names to their values")
        named: dict[str, Mapping[str, np.ndarray]] = {}
        for name, axis in axes.items():
            named[name] = (
                axis.values if isinstance(axis, Zipped) else {name: axis_values(name, axis)}
            )
        parameters = list(itertools.chain.from_iterable(named.values()))
        repeated = [name for name, count in collections.Counter(parameters).items() if count > 1]
        if repeated:
            raise ValueError(f"axes must name a parameter once, got {repeated[0]!r} more than once")
        check_axes(named)
        for dim, columns in named.items():
            _check_range(dim, columns)
        _check_parameters(cell, parameters)
        points = math.prod(len(next(iter(columns.values()))) for columns in named.values())
        return cls(named, _seed_indices(seeds, points))

    @classmethod
    def parse(cls, description: GridDescription) -> Grid:
        """Invert `describe`."""
        axes = {
            dim: {name: np.asarray(values) for name, values in parameters.items()}
            for dim, parameters in description["axes"].items()
        }
        seeds = description["seeds"]
        return cls(
            axes,
            np.arange(*seeds["range"]) if isinstance(seeds, dict) else np.asarray(seeds, np.int64),
        )

    @classmethod
    def hull(cls, grids: Sequence[Grid], kinds: Mapping[str, npt.DTypeLike]) -> Grid:
        """The smallest grid that contains grids of the same parameters, in ascending order.

        Points of an axis of zipped parameters keep the order in which they first appear. If the
        grids differ in which parameters are zipped, all are zipped along one axis `point`.

        Args:
            grids: at least one.
            kinds: parameter -> its type in programs; values that are equal in it are one value.
        """
        if len(grids) == 1:
            return grids[0]
        structures = {
            frozenset((dim, tuple(sorted(axis))) for dim, axis in grid.axes.items())
            for grid in grids
        }
        if len(structures) > 1:
            grids = [grid.flattened() for grid in grids]
        axes: dict[str, Mapping[str, np.ndarray]] = {}
        for dim, parameters in grids[0].axes.items():
            points: dict[tuple[float, ...], tuple[float, ...]] = {}
            for grid in grids:
                columns = {name: grid.axes[dim][name] for name in parameters}
                rounded = zip(
                    *(column.astype(kinds[name]).tolist() for name, column in columns.items()),
                    strict=True,
                )
                exact = zip(*(column.tolist() for column in columns.values()), strict=True)
                for identity, point in zip(rounded, exact, strict=True):
                    points.setdefault(identity, point)
            ordered = sorted(points.values()) if len(parameters) == 1 else list(points.values())
            values = map(np.asarray, zip(*ordered, strict=True))
            axes[dim] = dict(zip(parameters, values, strict=True))
        return cls(axes, np.unique(np.concatenate([grid.seeds for grid in grids])))

    def flattened(self) -> Grid:
        """The same points along one axis `point`, with the same seeds."""
        shape = self.shape[:-1]
        indices = np.unravel_index(np.arange(int(np.prod(shape))), shape) if self.axes else ()
        columns = {
            name: values[index]
            for index, axis in zip(indices, self.axes.values(), strict=True)
            for name, values in axis.items()
        }
        return Grid({"point": columns} if columns else {}, self.seeds)

    def describe(self) -> GridDescription:
        """The grid as plain values for JSON, without loss of digits."""
        axes = {
            dim: {name: values.tolist() for name, values in parameters.items()}
            for dim, parameters in self.axes.items()
        }
        first, count = int(self.seeds[0]), len(self.seeds)
        consecutive = np.array_equal(self.seeds, np.arange(first, first + count))
        seeds = {"range": [first, first + count]} if consecutive else self.seeds.tolist()
        return {"axes": axes, "seeds": seeds}

    def arguments(self) -> _Arguments:
        """The axes and seeds as arguments of `sweep`."""
        axes: dict[str, AxisValues] = {
            dim: axis[dim] if list(axis) == [dim] else Zipped(axis)
            for dim, axis in self.axes.items()
        }
        return {"axes": axes, "seeds": self.seeds}

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters of all axes, sorted: the order of the axes does not change the program."""
        return tuple(sorted(itertools.chain.from_iterable(self.axes.values())))

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis, then the number of seeds."""
        sizes = (len(next(iter(values.values()))) for values in self.axes.values())
        return (*sizes, len(self.seeds))

    @property
    def size(self) -> int:
        """The number of runs."""
        return int(np.prod(self.shape))

    def runs(self, flat: np.ndarray, real: npt.DTypeLike = np.float32) -> Columns:
        """The input of runs.

        Args:
            flat: their indices in the flat order, [B].
            real: the type of floating-point parameters.
        """
        *indices, seed = np.unravel_index(flat, self.shape)
        columns = {
            name: values.astype(real if values.dtype.kind == "f" else np.int32)[index]
            for index, parameters in zip(indices, self.axes.values(), strict=True)
            for name, values in parameters.items()
        }
        return (self.seeds[seed].astype(np.uint32), *(columns[name] for name in self.names))

    def corners(self) -> list[dict[str, float]]:
        """A few points at which the parts of a cell see, and check, the extremes of all parameters.

        Each parameter has its smallest and its largest value, and one that is not whole if there is
        any, since a range of whole ends may have others between them.
        """
        indices = [
            list(dict.fromkeys(index for column in axis.values() for index in _extremes(column)))
            for axis in self.axes.values()
        ]
        count = max(map(len, indices), default=1)
        points = []
        for place in range(count):
            point = {}
            for axis, wanted in zip(self.axes.values(), indices, strict=True):
                index = wanted[min(place, len(wanted) - 1)]
                point |= {name: column[index].item() for name, column in axis.items()}
            points.append(point)
        return points


def _extremes(values: np.ndarray) -> list[int]:
    """The indices of the smallest, the largest and, if there is any, a value that is not whole."""
    ends = [int(np.argmin(values)), int(np.argmax(values))]
    return ends + np.flatnonzero(values != np.round(values))[:1].tolist()


def axis_values(name: str, values: npt.ArrayLike) -> np.ndarray:
    """Check the values of an axis, and return them as an array."""
    array = checks.concrete(checks.unmasked(f"axis {name!r}", values))
    if array is None:
        raise ValueError(f"axis {name!r} must be a list of numbers, got a traced value")
    if array.dtype.kind == "f" and isinstance(values, Sequence):
        whole = [value for value in values if isinstance(value, int)]
        if len(whole) == len(values):  # NumPy makes 2^63 and -1 floating-point numbers
            array = np.asarray(values, object)
    if array.dtype.kind == "O" and all(isinstance(value, int) for value in array.flat):
        _check_integers(name, array)
    if (
        array.ndim != 1
        or not len(array)
        or array.dtype.kind not in "iuf"
        or not np.isfinite(array).all()
    ):
        raise ValueError(
            f"axis {name!r} must be a non-empty list of finite numbers, got {values!r}"
        )
    return array


def _check_range(dim: str, columns: Mapping[str, np.ndarray]) -> None:
    """Check that programs see the points of an axis as they are, and different ones as different.

    Raises:
        ValueError: if whole numbers are beyond int32, or others beyond the normal range of the
            floating-point type, or if two points are equal in it.
    """
    kind = checks.floating()
    rounded = []
    for name, values in columns.items():
        if values.dtype.kind in "iu":
            _check_integers(name, values)
        else:
            checks.representable(f"axis {name!r}", values)
        rounded.append(values.astype(kind) if values.dtype.kind == "f" else values)
    points: dict[tuple[float, ...], tuple[float, ...]] = {}
    exact = zip(*(values.tolist() for values in columns.values()), strict=True)
    for seen, point in zip(zip(*(r.tolist() for r in rounded), strict=True), exact, strict=True):
        other = points.setdefault(seen, point)
        if other != point:
            one, two = (each if len(columns) > 1 else each[0] for each in (other, point))
            raise ValueError(
                f"axis {dim!r} must have values that differ in {kind}, got {one} and {two}"
            )


def _check_integers(name: str, values: np.ndarray) -> None:
    """Check that whole numbers fit the int32 in which programs hold them."""
    limits = np.iinfo(np.int32)
    outside = values[(values < limits.min) | (values > limits.max)]
    if outside.size:
        raise ValueError(
            f"axis {name!r} must have whole numbers from {limits.min} to {limits.max}, or "
            f"numbers with a decimal point, got {outside[0]}"
        )


def _seed_indices(seeds: Seeds, points: int) -> np.ndarray:
    """Check a number of seeds or a list of seed indices, and return the indices.

    Args:
        seeds: see `Seeds`.
        points: the number of points of the grid, each of which has these seeds.
    """
    if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool):
        count = checks.integer("seeds", seeds, maximum=LARGEST_SEED)
        _check_size(points * count)
        return np.arange(count, dtype=np.int64)
    if isinstance(seeds, range) and seeds and max(seeds[0], seeds[-1]) > LARGEST_SEED:
        raise ValueError(f"seeds must be at most {LARGEST_SEED}, got {seeds}")
    if isinstance(seeds, range):
        _check_size(points * len(seeds))
        seeds = np.array(seeds)
    indices = checks.concrete(checks.unmasked("seeds", seeds))
    if (
        indices is None
        or indices.ndim != 1
        or not len(indices)
        or indices.dtype.kind not in "iu"
        or (indices < 0).any()
    ):
        raise ValueError(
            f"seeds must be a number of seeds or a list of seed indices, got {seeds!r}"
        )
    _check_size(points * len(indices))
    if indices.max() > LARGEST_SEED:
        raise ValueError(f"seeds must be at most {LARGEST_SEED}, got {indices.max()}")
    if len(np.unique(indices)) < len(indices):
        raise ValueError(f"seeds must be different, got {seeds!r}")
    return indices.astype(np.int64)


def _check_size(runs: int) -> None:
    """Refuse more runs than the free memory can describe."""
    if runs > 10**6:
        import psutil

        most = psutil.virtual_memory().available // 2 // RUN_BYTES  # half is for the tiles
        if runs > most:
            raise ValueError(
                f"axes and seeds must make at most {most} runs in this memory, got {runs}"
            )


def _check_parameters(cell: Callable[..., object], names: Sequence[str]) -> None:
    """Check that the axes are keyword parameters of the cell, and cover those without a default."""
    parameters = list(inspect.signature(cell).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    allowed = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"axes must be parameters of the cell ({', '.join(allowed) or 'none'}), "
                f"got {name!r}{hint}"
            )
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.name in allowed and p.name not in names
    ]
    if missing:
        raise ValueError(
            f"axes must cover the cell's parameters without a default, {missing[0]!r} is missing"
        )
