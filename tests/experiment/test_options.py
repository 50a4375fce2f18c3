"""Every member of a room has a row in the options table, and every row fits its factory."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator

import pytest

from causal_sgd import theory
from causal_sgd.experiment import Experiment
from causal_sgd.experiment._sensing._metrics import METRICS
from causal_sgd.experiment._table import Option, Table
from causal_sgd.sensing import metrics
from causal_sgd.training import curvature

TABLES = Experiment.SYSTEM.tables
ROOMS = {table.field: table for table in TABLES}
OWN = ("family", "evolution", "sampler", "model", "measurement", "algorithm")  # not optax's
NOT_FOR_THE_SHELL = {
    "algorithm": {
        "stream",  # the key of a named stream
        "penalised",  # with objectives and
        "fitted",  # with estimators: the methods of the second system
    },
    "family": {
        "from_arrays",  # takes arrays
        "from_quantile",  # takes a function
        "reduced",  # takes a world
    },
}
FIELDS = {field.name for field in dataclasses.fields(Experiment)}


def members(field: str) -> Iterator[str]:
    names = ROOMS[field].module().__all__
    yield from (name for name in names if name[0].islower())  # types are not options


def rows() -> Iterator[tuple[Table, str, Option]]:
    for table in TABLES:
        yield from ((table, name, row) for name, row in table.options.items())
        if table.replacement is not None:
            yield (table, *table.replacement)


def parameters(factory: Callable[..., object]) -> tuple[set[str], set[str]]:
    """Required and optional arguments, with those of a TypedDict of keywords."""
    required, optional = set(), set()
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            (options,) = typing.get_args(typing.get_type_hints(factory)[name])  # Unpack[...]
            required |= options.__required_keys__
            optional |= options.__optional_keys__
        elif parameter.default is inspect.Parameter.empty:
            required.add(name)
        else:
            optional.add(name)
    return required, optional


ROWS = [pytest.param(*row, id=f"{row[0].field}-{row[1]}") for row in rows()]


@pytest.mark.parametrize(
    ("field", "member"), [(field, member) for field in OWN for member in members(field)]
)
def test_every_member_has_a_row(field: str, member: str) -> None:
    table = ROOMS[field]
    built = {row.factory or name.replace("-", "_") for name, row in table.options.items()}
    if table.replacement is not None:
        built.add(table.replacement[1].factory or "")
    assert member in built | NOT_FOR_THE_SHELL.get(field, set()), (
        f"add a row for {member} to the options of {field}, or name it in NOT_FOR_THE_SHELL"
    )


@pytest.mark.parametrize("metric", [*metrics.__all__, *curvature.__all__])
def test_every_metric_has_a_row(metric: str) -> None:
    assert metric in METRICS, f"add {metric} to METRICS"


@pytest.mark.parametrize("metric", METRICS)
def test_every_row_of_a_metric_names_one(metric: str) -> None:
    assert metric in METRICS[metric].module().__all__


@pytest.mark.parametrize(("table", "name", "row"), ROWS)
def test_arguments_of_a_row_are_those_of_its_factory(table: Table, name: str, row: Option) -> None:
    assert row.fields <= FIELDS, "a row reads a field that an experiment does not have"
    if row.arguments is None:
        return
    required, optional = parameters(table.factory(name, row))
    assert required <= set(row.arguments) <= required | optional


@pytest.mark.parametrize("field", Experiment.sweepable())
def test_every_sweepable_number_has_an_effect_in_some_experiment(field: str) -> None:
    readers = {field for _, _, row in rows() for field in row.fields}
    assert field in readers | {"init_scale"}


def test_integer_axes_are_the_whole_numbers_among_the_sweepable() -> None:
    defaults = Experiment()
    whole = {name for name in Experiment.sweepable() if isinstance(getattr(defaults, name), int)}
    assert set(Experiment.integer_axes()) == whole


def test_theory_knows_the_families_whose_rows_have_a_curve() -> None:
    families = ROOMS["family"].options
    with_curve = {name.replace("-", "_") for name, row in families.items() if row.curve}
    assert with_curve == set(theory.families)


def test_choices_are_the_rows() -> None:
    choices = Experiment.choices()
    assert all(choices[field] == tuple(table.options) for field, table in ROOMS.items())
    assert choices["metrics"] == tuple(METRICS)
