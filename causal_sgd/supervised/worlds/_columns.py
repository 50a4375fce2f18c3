"""A user's table of inputs, labels and environments, read from any kind of array and checked."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from causal_sgd import checks

__all__ = ["Columns", "read"]


class Columns(NamedTuple):
    """A checked table."""

    inputs: np.ndarray  # [N, p] double precision
    labels: np.ndarray  # [N]
    owners: np.ndarray  # [N] the number of each row's environment
    names: tuple[str, ...] | None  # of the inputs, where known
    environments: tuple[Hashable, ...]  # their names
    images: bool = False  # whether an input was an array of its own, which is flattened


def read(x: Any, y: Any, environment: Any, columns: Sequence[str] | None) -> Columns:
    """Read and check a user's data.

    Args:
        x: inputs [N, p], or [N, ...] to flatten: an array, a data frame, or an array or dataset of
            xarray.
        y: labels [N], or the name of a column of x.
        environment: [N] names of any kind, or the name of a column of x.
        columns: names of the inputs; those to take where x has names.

    Raises:
        ValueError: if something is missing, of a wrong shape, not a number or not finite.
    """
    table, names = _table(x)
    images = table.ndim > 2
    if images:
        table = table.reshape(len(table), math.prod(table.shape[1:]))
    size = len(table)
    taken = [name for name in (y, environment) if isinstance(name, str)]
    labels = _column("y", y, table, names) if isinstance(y, str) else _plain("y", y)
    owners = _column("environment", environment, table, names)
    chosen, kept = _chosen(table, names, columns, taken)
    _check_lengths(size, labels, owners)
    inputs = _plain_numbers(table, chosen)
    if inputs is None:
        inputs = np.column_stack(
            [_numbers("x", table[:, place], _words(names or kept, place)) for place in chosen]
        )
    target = _numbers("y", labels, "")
    numbers, environments = _enumerated(owners)
    return Columns(inputs, target, numbers, kept, environments, images)


def _table(x: Any) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The entries [N, ...] of a table and the names of its columns, where it has any."""
    names = None
    if hasattr(x, "data_vars"):  # a dataset of xarray
        parts = [np.asarray(x[name]) for name in x.data_vars]
        names = tuple(str(name) for name in x.data_vars)
        if not parts or any(part.shape != parts[0].shape or part.ndim != 1 for part in parts):
            raise ValueError("x must have variables of one dimension, all the same, as a dataset")
        array = np.empty((len(parts[0]), len(parts)), object)
        for place, part in enumerate(parts):
            array[:, place] = part
    elif hasattr(x, "columns") and hasattr(x, "to_numpy"):  # a data frame
        array, names = np.asarray(x.to_numpy()), tuple(str(name) for name in x.columns)
    else:
        array = _plain("x", x)
        if hasattr(x, "dims") and array.ndim == 2 and x.dims[1] in x.coords:
            names = tuple(str(name) for name in np.asarray(x.coords[x.dims[1]]))
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise ValueError(
            f"x must have shape [N, p], a row for every example, got {list(array.shape)}"
        )
    return array, names


def _plain(name: str, value: Any) -> np.ndarray:
    array = checks.concrete(checks.unmasked(name, value))
    if array is None:
        raise ValueError(f"{name} must be a concrete array, got a traced one")
    return array


def _column(name: str, value: Any, table: np.ndarray, names: tuple[str, ...] | None) -> np.ndarray:
    """An array [N], from a column of the table where the value is a name."""
    if not isinstance(value, str):
        return _plain(name, value)
    if names is None:
        raise ValueError(f"{name} must be an array, since x has no named columns, got {value!r}")
    checks.choice(name, value, names)
    return table[:, names.index(value)]


def _chosen(
    table: np.ndarray,
    names: tuple[str, ...] | None,
    columns: Sequence[str] | None,
    taken: Sequence[str],
) -> tuple[list[int], tuple[str, ...] | None]:
    """The places and names of the inputs among the columns of a table."""
    width = table.shape[1]
    if columns is None:
        chosen = [place for place in range(width) if names is None or names[place] not in taken]
        if not chosen:
            raise ValueError("x must have a column that is neither the label nor the environment")
        return chosen, None if names is None else tuple(names[place] for place in chosen)
    checks.instance("columns", columns, (list, tuple), "a list of names of columns")
    wanted = [str(name) for name in columns]
    if len(set(wanted)) < len(wanted) or not wanted:
        raise ValueError(f"columns must be different names, at least one, got {wanted}")
    if names is None:
        if len(wanted) != width:
            raise ValueError(
                f"columns must name all {width} columns of an x without names, got {len(wanted)}"
            )
        return list(range(width)), tuple(wanted)
    for name in wanted:
        checks.choice("columns", name, names)
    return [names.index(name) for name in wanted], tuple(wanted)


def _check_lengths(size: int, labels: np.ndarray, owners: np.ndarray) -> None:
    for name, words, array in (("y", "label", labels), ("environment", "name", owners)):
        if array.shape != (size,):
            raise ValueError(
                f"{name} must have shape [{size}], one {words} for every row of x, got "
                f"{list(array.shape)}"
            )
    if not size:
        raise ValueError("environment must name at least one environment, got no rows")


def _plain_numbers(table: np.ndarray, chosen: Sequence[int]) -> np.ndarray | None:
    """The columns at these places in double precision, if all are finite; None to look closer."""
    if table.dtype.kind not in "biuf":
        return None
    numbers = table[:, chosen].astype(np.float64)
    if not np.isfinite(numbers).all():
        return None
    checks.representable("x", numbers)
    return numbers


def _words(names: tuple[str, ...] | None, place: int) -> str:
    return f", column {place}" if names is None else f", column {names[place]!r}"


def _numbers(name: str, values: np.ndarray, column: str) -> np.ndarray:
    """A column [N] in double precision.

    Raises:
        ValueError: naming the row and the column of the first entry that is no finite number.
    """
    if values.dtype.kind not in "biuf":
        kinds = (bool, int, float, np.bool_, np.integer, np.floating)
        numeric = np.array([isinstance(entry, kinds) for entry in values], bool)
        if not numeric.all():
            row = int(np.flatnonzero(~numeric)[0])
            raise ValueError(
                f"{name} must hold finite numbers, got {values[row]!r} in row {row}{column}"
            )
    numbers = values.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise ValueError(
            f"{name} must hold finite numbers, got {numbers[wrong[0]]:g} in row {wrong[0]}{column}"
            + (f", and {len(wrong) - 1} more in this column" if len(wrong) > 1 else "")
        )
    checks.representable(name, numbers)
    return numbers


def _enumerated(owners: np.ndarray) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """The numbers [N] of the environments, and their names, sorted where they can be."""
    values = owners.tolist()
    for row, value in enumerate(values):
        if not isinstance(value, Hashable) or _is_missing(value):
            raise ValueError(
                f"environment must name an environment in every row, got {value!r} in row {row}"
            )
    names = _sorted(dict.fromkeys(values))
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[value] for value in values]), names


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)  # NaN
    except TypeError:  # what pandas has for it
        return True


def _sorted(names: Iterable[Any]) -> tuple[Hashable, ...]:
    names = list(names)
    try:
        return tuple(sorted(names))
    except TypeError:  # numbers beside words
        return tuple(names)
