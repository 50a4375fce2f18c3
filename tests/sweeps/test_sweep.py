"""A sweep is many runs, whatever their order, tiles or devices."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.monitoring
import numpy as np
import psutil
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import causal_sgd
from causal_sgd.experiment import Experiment
from causal_sgd.sensing import metrics
from causal_sgd.sweeps import sweep, zipped
from causal_sgd.training import run
from causal_sgd.types import Trace
from support.sweeps import COMPILATIONS, WATCHED, build, same_bits


# Sweeps treat all cells alike; one with population gradients compiles in a quarter of the time.
def cell(key: jax.Array, *, spread: Any = 3.0, learning_rate: Any = 0.1) -> Trace:
    algorithm = build(spread=spread, learning_rate=learning_rate)
    return run(key, algorithm=algorithm, metrics=WATCHED, num_steps=8, record_every=3)


def law_cell(key: jax.Array, *, spread: Any = 3.0, learning_rate: Any = 0.1) -> Trace:
    algorithm = build(spread=spread, learning_rate=learning_rate, law=True, basis="random")
    return run(key, algorithm=algorithm, metrics=WATCHED, num_steps=8, record_every=3)


def short_cell(key: jax.Array, *, spread: Any = 3.0, learning_rate: Any = 0.1) -> Trace:
    algorithm = build(spread=spread, learning_rate=learning_rate)
    return run(key, algorithm=algorithm, metrics=[metrics.spurious_signal], num_steps=4)


@pytest.mark.slow
def test_a_sweep_is_labelled_by_its_axes_seeds_and_steps() -> None:
    rates = np.geomspace(0.01, 0.1, 3)
    dataset = sweep(cell, axes={"spread": [1, 4], "learning_rate": rates}, seeds=[5, 2], tile=4)
    assert dataset["spurious"].dims == ("spread", "learning_rate", "seed", "step")
    assert dataset["values"].dims[:4] == dataset["spurious"].dims
    assert dataset["values"].shape == (2, 3, 2, 4, 2)
    assert dataset["diverged_at"].dims == ("spread", "learning_rate", "seed")
    np.testing.assert_array_equal(dataset["spread"], [1, 4])
    np.testing.assert_array_equal(dataset["learning_rate"], rates)
    np.testing.assert_array_equal(dataset["seed"], [5, 2])
    np.testing.assert_array_equal(dataset["step"], [0, 3, 6, 8])
    assert dataset.attrs["tile"] == 4
    assert dataset.attrs["platform"] == jax.default_backend()
    assert {"causal_sgd", "jax", "device", "key", "key_implementation"} <= set(dataset.attrs)


@pytest.mark.slow
def test_a_sweep_of_other_size_traces_the_cell_once_and_compiles_nothing() -> None:
    calls = []

    def counted(key: jax.Array, *, spread: Any) -> Trace:
        calls.append(spread)
        return short_cell(key, spread=spread)

    def traced() -> (
        int
    ):  # the calls in which the value was traced, not one of the concrete points that are checked
        return sum(isinstance(value, jax.core.Tracer) for value in calls)

    sweep(counted, axes={"spread": np.linspace(1, 2, 3)}, seeds=3, tile=8)
    first = traced()
    COMPILATIONS.clear()
    sweep(counted, axes={"spread": np.linspace(0, 5, 50)}, seeds=7, tile=8)
    assert traced() == first + 1, "one trace shows that the cell is still the same"
    assert not COMPILATIONS, "other numbers and more of them were compiled again"
    assert first <= 2, "one trace measures the program, one is run"


@pytest.mark.slow
def test_a_tile_of_the_usual_size_is_not_traced_again() -> None:
    traced = {}
    for tile in (16, 8):
        calls = []

        def counted(key: jax.Array, calls: list[None] = calls) -> Trace:
            calls.append(None)
            return short_cell(key)

        sweep(counted, seeds=tile, tile=tile, devices=jax.devices()[:1])
        traced[tile] = len(calls)
    assert traced == {16: 2, 8: 3}  # dry run, measurement, and another tile


@functools.cache
def reference(cell: Any = cell) -> xr.Dataset:
    """Every combination of the pools below."""
    return sweep(
        cell,
        axes={"spread": SPREADS, "learning_rate": RATES},
        seeds=SEEDS,
        tile=4,
        devices=jax.devices()[:1],
    )


SPREADS, RATES, SEEDS = [1.0, 3.0, 6.0], [0.05, 0.2], [0, 1, 2, 7]


def subset(pool: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(pool), min_size=1, unique=True)


@pytest.mark.parametrize("cell", [cell, pytest.param(law_cell, marks=pytest.mark.slow)])
@given(
    spreads=subset(SPREADS),
    rates=subset(RATES),
    seeds=subset(SEEDS),
    swap=st.booleans(),
    devices=st.sampled_from([1, 2]),
)
def test_a_run_has_the_same_bits_in_any_sweep_of_one_tile(
    cell: Any, spreads: list[float], rates: list[float], seeds: list[int], swap: bool, devices: int
) -> None:
    """In any order of axes, values and seeds, among any runs and padding, on one device or two."""
    axes = {"spread": spreads, "learning_rate": rates}
    if swap:
        axes = dict(reversed(axes.items()))
    found = sweep(cell, axes=axes, seeds=seeds, tile=4, devices=jax.devices()[:devices], memory=1e9)
    expected = reference(cell).sel(spread=spreads, learning_rate=rates, seed=seeds)
    assert same_bits(found.transpose(*expected["values"].dims), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "tile"), [(7, 3), pytest.param(33, 2, marks=pytest.mark.long)])
@pytest.mark.parametrize("measurement", ["gaussian_law", "low_rank_law", "fixed_design"])
def test_the_place_in_a_tile_changes_no_bit(measurement: str, dim: int, tile: int) -> None:
    """If the vector width does not divide the tile, its last numbers are computed differently."""
    options = {"fixed_design": {"num_examples": 60}, "low_rank_law": {"rank": 3}}
    odd = Experiment(
        dim=dim,
        measurement=measurement,
        invariant_rank=2,
        spurious_rank=2,
        batch_size=50,
        init_scale=0.3,
        steps=6,
        sampler="stratified",
        num_environments=4,
        **options.get(measurement, {}),
    ).cell()
    forward, backward = (
        sweep(odd, seeds=seeds, tile=tile) for seeds in (range(tile), range(tile)[::-1])
    )
    assert same_bits(forward, backward.sortby("seed"))
    assert np.isfinite(forward.spurious_signal).all()


def test_seeds_may_be_added_later() -> None:
    axes = {"spread": [1.0, 3.0]}
    whole = sweep(cell, axes=axes, seeds=6, tile=4)
    parts = [
        sweep(cell, axes=axes, seeds=4, tile=4),
        sweep(cell, axes=axes, seeds=range(4, 6), tile=4),
    ]
    assert same_bits(xr.concat(parts, dim="seed", data_vars="minimal"), whole)


def test_a_slice_of_a_sweep_is_a_single_run() -> None:
    dataset = reference()
    root = jax.random.key(0)
    single = jax.jit(lambda key, spread, rate: cell(key, spread=spread, learning_rate=rate))
    for spread, rate, seed in ((1.0, 0.2, 7), (6.0, 0.05, 0)):
        trace = single(jax.random.fold_in(root, seed), spread, rate)
        point = dataset.sel(spread=spread, learning_rate=rate, seed=seed)
        for name, values in trace.metrics.items():
            np.testing.assert_allclose(point[name], values, rtol=1e-5, atol=1e-7)
        assert point["diverged_at"] == trace.diverged_at


@pytest.mark.slow
def test_the_tile_changes_nothing_but_the_last_bits() -> None:
    axes = {"spread": SPREADS, "learning_rate": RATES}
    chosen = sweep(cell, axes=axes, seeds=SEEDS)
    xr.testing.assert_allclose(chosen.drop_attrs(), reference().drop_attrs(), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_little_memory_makes_smaller_tiles() -> None:
    axes = {"spread": SPREADS}
    plenty = sweep(short_cell, axes=axes, seeds=4)
    memory = 1e3
    while True:
        try:
            little = sweep(short_cell, axes=axes, seeds=4, memory=memory)
        except ValueError:  # `test_bad_input` checks the message
            memory *= 1.5
        else:
            break
    assert little.attrs["tile"] < plenty.attrs["tile"]
    xr.testing.assert_allclose(little.drop_attrs(), plenty.drop_attrs(), rtol=1e-5)


def test_zipped_parameters_change_together() -> None:
    axis = zipped(spread=[1.0, 3.0, 6.0], learning_rate=[0.2, 0.05, 0.2])
    dataset = sweep(cell, axes={"point": axis}, seeds=2, tile=4)
    assert dataset["spurious"].dims == ("point", "seed", "step")
    assert dataset["spread"].dims == dataset["learning_rate"].dims == ("point",)
    for index in range(3):
        point = dataset.isel(point=index)
        expected = reference().sel(
            spread=point["spread"], learning_rate=point["learning_rate"], seed=[0, 1]
        )
        np.testing.assert_array_equal(point["spurious"], expected["spurious"])


@pytest.mark.slow
def test_an_integer_is_the_root_key_of_that_number() -> None:
    by_number = sweep(short_cell, seeds=3, key=5, tile=4)
    by_key = sweep(short_cell, seeds=3, key=jax.random.key(5), tile=4)
    assert same_bits(by_number, by_key)
    assert by_number.attrs == by_key.attrs
    assert not same_bits(by_number, sweep(short_cell, seeds=3, key=6, tile=4))


@pytest.mark.slow
def test_the_kind_of_random_numbers_is_recorded() -> None:
    default = sweep(short_cell, seeds=3, tile=4)
    assert "fry" in default.attrs["key_implementation"]
    assert default.attrs["key"] == "0 0"
    other = sweep(short_cell, seeds=3, tile=4, key=jax.random.key(0, impl="rbg"))
    assert "rbg" in other.attrs["key_implementation"]
    assert not same_bits(default, other)


def test_divergence_is_data() -> None:
    dataset = sweep(cell, axes={"learning_rate": [0.1, 1e6]}, seeds=4, tile=4)
    calm, wild = dataset.isel(learning_rate=0), dataset.isel(learning_rate=1)
    assert (calm["diverged_at"] == -1).all()
    assert ((wild["diverged_at"] >= 0) & (wild["diverged_at"] <= 8)).all()
    assert np.isfinite(calm["spurious"]).all()
    assert not np.isfinite(wild["spurious"].isel(step=-1)).any(), "a run that blew up stays so"
    alone = sweep(cell, axes={"learning_rate": [0.1]}, seeds=4, tile=4)
    assert same_bits(alone.isel(learning_rate=0), calm), "a run felt its neighbour blow up"


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """After the context: the peak growth of the process, in bytes."""
    process, done, grown = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.01):
            grown[0] = max(grown[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield grown
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
def test_a_hundred_thousand_runs_hold_little_more_than_their_results() -> None:
    axes = {"spread": np.linspace(0, 5, 100), "learning_rate": np.linspace(0.01, 0.1, 10)}
    sweep(
        short_cell, axes=axes, seeds=1
    )  # allocates what a thousand runs need, compiled code included
    with peak_memory() as grown:
        dataset = sweep(short_cell, axes=axes, seeds=100)
    assert dataset["spurious_signal"].size == 2 * 10**5
    # The results, their copy while they are labelled, and 64 MB for running tiles and allocators;
    # all runs at once would take GBs.
    assert grown[0] < 2 * dataset.nbytes + 64e6, f"grew by {grown[0] / 1e6:.0f} MB"


def test_the_package_offers_functions_under_their_names() -> None:
    # a room called like its function would hide it as soon as the room is imported
    for name in ("sgd", "run", "time_average", "sweep", "compare", "zipped", "use_cpu_cores"):
        assert callable(getattr(causal_sgd, name))
    assert causal_sgd.sweep is sweep
    assert set(causal_sgd.__all__) <= set(dir(causal_sgd))
