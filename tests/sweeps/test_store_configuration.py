"""A store belongs to one configuration, and says what made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import compare, sweep
from causal_sgd.sweeps._programs import Program
from causal_sgd.sweeps.store import Store, StoreError, open_results
from causal_sgd.types import Trace
from support.stores import edit


def experiment(**changes: Any) -> Any:
    fields = {
        "dim": 4,
        "invariant_rank": 1,
        "spurious_rank": 1,
        "steps": 3,
        "metrics": ("spurious_signal",),
    }
    fields |= {
        "measurement": "population",
        "model": "diagonal",
        "basis": "canonical",
    }  # quickly compiled
    return Experiment(**(fields | changes)).cell()


def closure(factor: float) -> Any:
    def cell(key: jax.Array, *, spread: Any) -> Trace:
        return experiment()(key, spread=factor * spread)

    return cell


def other_closure(key: jax.Array, *, spread: Any) -> Trace:
    return experiment(batch_size=9)(key, spread=spread)


AXES: dict[str, Any] = {"spread": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("first", "then", "messages"),
    [
        (
            experiment(),
            {"cell": experiment(batch_size=7, label_noise=0.5)},
            [
                "experiment.batch_size is 1000 in the store and 7 now",
                "experiment.label_noise is 0.0 in the store and 0.5 now",
            ],
        ),
        (
            experiment(),
            {"cell": experiment(steps=4)},
            ["experiment.steps is 3 in the store and 4 now"],
        ),
        (
            experiment(),
            {"cell": experiment(metrics=("spurious_signal", "batch_loss"))},
            ["metrics.batch_loss is nothing in"],
        ),
        (experiment(), {"key": 5}, ["key is 0 0 in the store and 0 5 now"]),
        (
            experiment(),
            {"axes": {"mean": [1.0]}},
            ["parameters.mean is nothing in the store and float32 now"],
        ),
        (
            experiment(),
            {"axes": {"spread": [1, 2]}},
            ["parameters.spread is float32 in the store and int32 now"],
        ),
        (
            experiment(),
            {"config": {"note": "mine"}},
            ["config is nothing in the store and {'note': 'mine'} now"],
        ),
        (
            closure(1.0),
            {"cell": closure(2.0)},
            ["the cell computes something else", "refers to changed"],
        ),
        (
            closure(1.0),
            {"cell": other_closure},
            ["cell is closure.<locals>.cell in the store and other_closure now"],
        ),
    ],
)
def test_another_configuration_is_refused_with_every_difference(
    tmp_path, first: Any, then: dict, messages: Sequence[str]
) -> None:
    path = tmp_path / "first.zarr"
    sweep(first, axes=AXES, tile=2, store=path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(StoreError) as error:
        sweep(**({"cell": first, "axes": AXES, "seeds": 4, "store": path} | then))
    for message in (*messages, "Give this sweep a store of its own"):
        assert message in str(error.value)
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_store_of_another_version_is_used_with_a_warning(tmp_path) -> None:
    path = tmp_path / "old.zarr"
    sweep(closure(1.0), axes=AXES, tile=2, store=path)

    def age(header: dict[str, Any]) -> None:
        environment = header["environments"][0]
        environment["versions"]["jax"], environment["program"] = "0.9.9", "as another jax prints it"

    edit(path, age, vouched=True)
    with pytest.warns(UserWarning, match=r"rounding only: versions.jax is 0.9.9 in the store and"):
        sweep(closure(1.0), axes=AXES, seeds=3, store=path)
    assert open_results(path).attrs["environments"] == 2
    # Both are recorded now, and each version's program is compared with its own.
    with pytest.raises(StoreError, match="computes something else"):
        sweep(closure(2.0), axes=AXES, seeds=4, store=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"array": np.zeros(3)}}, "config must hold plain values that JSON can hold"),
        ({"config": {"rate": float("nan")}}, "config must hold plain values"),
        (
            {"executor": 3},
            "executor must be a concurrent.futures.Executor or a function that makes one, got 3",
        ),
        ({"tiles_per_task": 0}, "tiles_per_task must be a whole number, at least 1"),
        ({"retries": -1}, "retries must be a whole number, at least 0"),
        ({"seeds": [2**32]}, "seeds must be at most 4294967295"),
    ],
)
def test_bad_options_are_named_before_a_store_is_made(
    tmp_path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(experiment(), axes=AXES, store=tmp_path / "bad.zarr", **options)
    assert not list(tmp_path.iterdir())


def test_a_metric_that_cannot_be_stored_under_its_name(tmp_path) -> None:
    def named(key: jax.Array, *, spread: Any) -> Trace:
        trace = experiment()(key, spread=spread)
        return trace._replace(metrics={"_seed": trace.metrics["spurious_signal"]})

    with pytest.raises(StoreError, match="metric '_seed' cannot be stored under that name"):
        sweep(named, axes=AXES, store=tmp_path / "named.zarr")
    assert not list(tmp_path.iterdir())


def test_provenance_is_kept(tmp_path) -> None:
    path = tmp_path / "own.zarr"
    sweep(experiment(), axes=AXES, tile=2, store=path, config={"note": "mine"})
    store = Store(path)
    assert store.configuration["experiment"]["dim"] == 4
    assert "spread" not in store.configuration["experiment"], (
        "what is an axis is no part of the configuration"
    )
    assert store.configuration["config"] == {"note": "mine"}
    assert store.configuration["key_implementation"] == str(jax.random.key_impl(jax.random.key(0)))
    (environment,) = store.environments
    assert environment["versions"]["jax"] == jax.__version__
    assert {
        "platform",
        "device",
        "machine",
        "cpu",
        "x64",
        "matmul_precision",
        "git_commit",
        "program",
    } < set(environment)
    assert (
        Experiment.parse(store.configuration["experiment"]).cell().configuration
        == experiment().configuration
    )


@pytest.mark.slow
def test_compared_methods_have_a_store_each(tmp_path, monkeypatch) -> None:
    cells = {"hetero": experiment(), "pooled": experiment(sampler="pooled")}
    found = compare(cells, axes=AXES, seeds=2, tile=2, store=tmp_path / "methods")
    assert {path.name for path in (tmp_path / "methods").glob("[!.]*.zarr")} == {
        "hetero.zarr",
        "pooled.zarr",
    }
    assert found.equals(compare(cells, axes=AXES, seeds=2, tile=2))
    monkeypatch.setattr(Program, "begin", None)  # what is complete is not compiled
    assert found.equals(compare(cells, axes=AXES, seeds=2, store=tmp_path / "methods"))


def test_a_resumed_sweep_of_an_equal_cell_compiles_nothing(tmp_path) -> None:
    compiled = []
    path = tmp_path / "resumed.zarr"
    sweep(experiment(), axes=AXES, seeds=3, tile=2, store=path)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    sweep(experiment(), axes=AXES | {"spread": [1.0, 2.0, 5.0]}, seeds=9, store=path)
    assert not compiled
