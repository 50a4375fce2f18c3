"""Every member of a room has a row in the options table, and every row fits its factory."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator

import pytest

from causal_sgd import theory
from causal_sgd.experiment import SYSTEMS, Experiment
from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.experiment._table import Option, Table
from causal_sgd.sensing import metrics as sensing_metrics
from causal_sgd.supervised import estimators
from causal_sgd.supervised import metrics as supervised_metrics
from causal_sgd.training import curvature

# The tables whose module is a room of the system, all of whose members have a row; not optax's.
ROOMS = {
    "sensing": ("world", "evolve", "sampler", "model", "measurement", "algorithm"),
    "supervised": ("world", "evolve", "sampler", "model", "measurement", "method"),
}
METRICS = {
    "sensing": [*sensing_metrics.__all__, *curvature.__all__],
    "supervised": [*supervised_metrics.__all__, *curvature.__all__],
}
OF_FUNCTIONS = {"reliance", "flip_accuracy"}
"""Metrics of a user's function, which the shell has not."""
NOT_FOR_THE_SHELL = {
    ("sensing", "algorithm"): {
        "stream",  # the key of a named stream
        "penalised",  # with objectives and
        "fitted",  # with estimators, and
        "fair",  # with gates, and
        "zin",  # with inferred environments: the methods of the second system
    },
    ("sensing", "world"): {
        "from_arrays",  # takes arrays
        "from_quantile",  # takes a function
        "reduced",  # takes a world
    },
    ("supervised", "world"): {
        "from_draws",  # takes a function
        "coloured_digits",  # images of packages beyond the dependencies
        "recoloured",  # of its inputs
        "from_equations",  # takes arrays
        "from_moments",
        "separable",
        "on_tests",  # takes a world
    },
    ("supervised", "model"): {
        "network",  # takes functions
        "from_flax",  # takes a module
        "from_equinox",
        "input_gates",  # takes a model
    },
    ("supervised", "method"): {
        "from_value",  # takes a function
        "annealed",  # a row of annealing
        "accepted_sets",  # tests of sets, no estimator
        "within",  # takes the inputs of open gates
    },
}
FIELDS = {
    system: {field.name for field in dataclasses.fields(kind)} for system, kind in SYSTEMS.items()
}


def members(system: str, part: str) -> Iterator[str]:
    (table,) = (table for table in SYSTEMS[system].SYSTEM.tables if table.part == part)
    names = [*table.module().__all__, *(estimators.__all__ if part == "method" else ())]
    yield from (name for name in names if name[0].islower())  # types are not options


def rows(kind: type[BaseExperiment]) -> Iterator[tuple[Table, str, Option]]:
    for table in kind.SYSTEM.tables:
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


ROWS = [
    pytest.param(system, *row, id=f"{system}-{row[0].field}-{row[1]}")
    for system, kind in SYSTEMS.items()
    for row in rows(kind)
]


@pytest.mark.parametrize(
    ("system", "part", "member"),
    [
        (system, part, member)
        for system, parts in ROOMS.items()
        for part in parts
        for member in members(system, part)
    ],
)
def test_every_member_has_a_row(system: str, part: str, member: str) -> None:
    (table,) = (table for table in SYSTEMS[system].SYSTEM.tables if table.part == part)
    built = {row.factory or name.replace("-", "_") for name, row in table.options.items()}
    if table.replacement is not None:
        built.add(table.replacement[1].factory or "")
    assert member in built | NOT_FOR_THE_SHELL.get((system, part), set()), (
        f"add a row for {member} to the options of {table.field}, or name it in NOT_FOR_THE_SHELL"
    )


@pytest.mark.parametrize(
    ("system", "metric"),
    [
        (system, name)
        for system, names in METRICS.items()
        for name in names
        if name not in OF_FUNCTIONS
    ],
)
def test_every_metric_has_a_row(system: str, metric: str) -> None:
    assert metric in SYSTEMS[system].SYSTEM.metrics, f"add {metric} to METRICS of {system}"


@pytest.mark.parametrize(
    ("system", "metric"),
    [(system, name) for system, kind in SYSTEMS.items() for name in kind.SYSTEM.metrics],
)
def test_every_row_of_a_metric_names_one(system: str, metric: str) -> None:
    assert metric in SYSTEMS[system].SYSTEM.metrics[metric].module().__all__


@pytest.mark.parametrize(("system", "table", "name", "row"), ROWS)
def test_arguments_of_a_row_are_those_of_its_factory(
    system: str, table: Table, name: str, row: Option
) -> None:
    assert row.fields <= FIELDS[system], "a row reads a field that an experiment does not have"
    if row.arguments is None:
        return
    required, optional = parameters(table.factory(name, row))
    assert required <= set(row.arguments) <= required | optional


@pytest.mark.parametrize(
    ("system", "field"),
    [(system, field) for system, kind in SYSTEMS.items() for field in kind.sweepable()],
)
def test_every_sweepable_number_has_an_effect_in_some_experiment(system: str, field: str) -> None:
    assert field in {field for _, _, row in rows(SYSTEMS[system]) for field in row.fields}


@pytest.mark.parametrize("kind", SYSTEMS.values(), ids=SYSTEMS)
def test_integer_axes_are_the_whole_numbers_among_the_sweepable(kind: type[BaseExperiment]) -> None:
    defaults = kind()
    given = {name: getattr(defaults, name) for name in kind.sweepable()}
    whole = {name for name, value in given.items() if isinstance(value, int)}
    without = {name for name, value in given.items() if value is None}
    assert whole <= set(kind.integer_axes()) <= whole | without


def test_theory_knows_the_families_whose_rows_have_a_curve() -> None:
    (families,) = (table.options for table in Experiment.SYSTEM.tables if table.field == "family")
    with_curve = {name.replace("-", "_") for name, row in families.items() if row.curve}
    given = {"discrete"}  # whose boundary is that of its environments
    assert with_curve == set(theory.families) | given


@pytest.mark.parametrize("kind", SYSTEMS.values(), ids=SYSTEMS)
def test_choices_are_the_rows(kind: type[BaseExperiment]) -> None:
    choices = kind.choices()
    assert all(choices[table.field] == tuple(table.options) for table in kind.SYSTEM.tables)
    assert choices["metrics"] == tuple(kind.SYSTEM.metrics)
