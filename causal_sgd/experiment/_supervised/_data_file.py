"""How a user's own data become a world: the arguments of `worlds.from_arrays` from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from causal_sgd import checks
from causal_sgd.experiment._table import AnyExperiment, Computed, Parts, option

if TYPE_CHECKING:
    from causal_sgd.experiment._supervised._files import Data

__all__ = ["FROM_FILE", "as_given", "number_of_classes"]


def as_given(field: str) -> Computed:
    """The value of a field that holds names or places, not numbers."""
    return Computed(lambda experiment, parts: getattr(experiment, field), (field,))


DEFAULT_COLUMNS = {"label_column": "y", "environment_column": "environment"}


def _data(parts: Parts) -> Data:
    return cast("Data", parts["data"])


def _column(name: str, experiment: AnyExperiment, array: object) -> object:
    """An array of the file, or else the name of its column."""
    column = getattr(experiment, name)
    if array is None:
        return DEFAULT_COLUMNS[name] if column is None else column
    if column is not None:
        raise ValueError(f"{name} must not be given with an .npz file, got {column!r}")
    return array


def _table(experiment: AnyExperiment, parts: Parts) -> object:
    """The inputs, or a table that has the columns of the label and the environment, too."""
    table = _data(parts).x
    if not hasattr(table, "columns"):
        return table
    names = [str(name) for name in table.columns]
    fields = {field: getattr(experiment, field) for field in DEFAULT_COLUMNS}
    wanted = [DEFAULT_COLUMNS[field] for field, column in fields.items() if column is None]
    lacking = [repr(name) for name in wanted if name not in names]
    if lacking:
        raise ValueError(
            f"data_file must have the columns {', '.join([*wanted, 'and those of the inputs'])}; "
            f"it lacks {' and '.join(lacking)}, has {', '.join(names)}"
        )
    for field, column in fields.items():
        if column is not None:
            checks.choice(field, column, names)
    return table


def _label(experiment: AnyExperiment, parts: Parts) -> object:
    """The labels, or the name of their column, if they fit the loss."""
    label = _column("label_column", experiment, _data(parts).y)
    if experiment.loss != "squared":
        found = np.unique(np.asarray(_values(label, parts))).tolist()
        classes = experiment.loss == "softmax"
        if not (found == list(range(len(found))) if classes else set(found) <= {-1, 1}):
            shown = ", ".join(map(repr, found[:4])) + (", ..." if len(found) > 4 else "")
            raise ValueError(
                f"labels must be {'0, 1, ..., one for each class,' if classes else '-1 and 1'} "
                f"where loss is {experiment.loss!r}, got {shown}"
            )
    return label


def _values(label: object, parts: Parts) -> object:
    """The labels, also where a column is named; nothing if there is no such column."""
    return _data(parts).x.get(label, ()) if isinstance(label, str) else label


def number_of_classes(experiment: AnyExperiment, parts: Parts) -> int | None:
    """How many labels the file has under a loss of classes; None under others."""
    if experiment.loss != "softmax":
        return None
    label = _column("label_column", experiment, _data(parts).y)
    return len(np.unique(np.asarray(_values(label, parts))))


def _environment(experiment: AnyExperiment, parts: Parts) -> object:
    array = _data(parts).environment
    return _column("environment_column", experiment, array)


def _held_out(experiment: AnyExperiment, parts: Parts) -> object:
    """The environments with these names, which need not be text in the file."""
    if experiment.held_out is None:
        return None
    names = _environment(experiment, parts)
    found = _data(parts).x.get(names, ()) if isinstance(names, str) else names
    known = {str(name): name for name in set(np.asarray(found).tolist())}
    return [known.get(name, name) for name in experiment.held_out]


FROM_FILE = option(
    "validation_share",
    "standardise",
    "probabilities",
    factory="from_arrays",
    columns=as_given("columns"),
    x=Computed(_table, ("data_file", *DEFAULT_COLUMNS)),
    y=Computed(_label, ("data_file", "label_column")),
    environment=Computed(_environment, ("data_file", "environment_column")),
    tests=Computed(_held_out, ("held_out",)),
)
