"""Runs of a seed that draw the same examples are computed together and hold them once."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from causal_sgd import random, run, sweep
from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.sweeps import _jaxprs, _programs
from causal_sgd.sweeps._failures import message_of
from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps._scheduler import Failure
from causal_sgd.sweeps._units import Units
from causal_sgd.sweeps.store import Store
from causal_sgd.training import samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Trace
from support.stores import forget
from support.sweeps import same_bits, trace_of


def fitted(key: jax.Array, rate: Any, scale: Any, size: int, dim: int = 5) -> Trace:
    """Some steps of least squares on rows that are drawn once."""
    rows = random.shareable(scale * random.normals(key, (size, dim), jnp.float32))

    def step(_: jax.Array, weights: jax.Array) -> jax.Array:
        return weights - rate * jnp.tanh(rows @ weights - 1) @ rows / size

    return trace_of(jax.lax.fori_loop(0, 6, step, jnp.zeros(dim)).sum())


def cell(key: jax.Array, *, rate: Any) -> Trace:
    return fitted(key, rate, 1.0, 37)


RATES, SEEDS = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2], [0, 1, 2, 7]


@functools.cache
def reference() -> xr.Dataset:
    return sweep(cell, axes={"rate": RATES}, seeds=SEEDS, tile=4)


def kinds(count: int) -> list[np.dtype]:
    return [np.dtype("float32")] * count


def logistic(key: jax.Array, *, rate: Any, noise: Any = 1.0, **options: Any) -> Trace:
    algorithm = sgd(
        world=worlds.zin_logit(dim_causal=2, dim_spurious=2, noise=noise),
        sampler=samplers.stratified(batch_size=40),
        measurement=measurements.examples(loss=losses.logistic, **options),
        model=models.linear(dim=4),
        optimizer=optax.sgd(rate),
    )
    return run(key, algorithm=algorithm, metrics=[metrics.weights], num_steps=4)


@pytest.mark.parametrize(
    "options", [{"num_examples": 90}, pytest.param({"fresh": 30}, marks=pytest.mark.slow)], ids=str
)
def test_runs_that_share_examples_are_single_runs(options: dict[str, int]) -> None:
    alone = functools.partial(logistic, **options)
    swept = sweep(alone, axes={"rate": RATES[:3]}, seeds=2)
    assert swept.attrs["tile"] == _programs.RUNS_OF_A_SEED
    single = jax.jit(alone)
    for seed in range(2):
        for place in (0, 2):
            trace = single(jax.random.fold_in(jax.random.key(0), seed), rate=RATES[place])
            found = swept["weights"].isel(rate=place, seed=seed)
            np.testing.assert_allclose(found, trace.metrics["weights"], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_examples_that_an_axis_enters_are_not_shared() -> None:
    def shares(names: tuple[str, ...]) -> bool:
        drawn = functools.partial(logistic, num_examples=90, **{"rate": 0.1} if not names else {})
        program = _programs.Program.make(drawn, names, kinds(len(names)), jax.random.key(0))
        return program.shares_draws

    assert shares(("rate",))
    assert not shares(("noise", "rate"))
    assert not shares(()), "a seed has one run"


def test_a_tile_holds_the_rows_of_a_seed_once(monkeypatch) -> None:
    """Whatever the number of runs: 48 more take less than half of 48 copies."""

    def large(key: jax.Array, *, rate: Any) -> Trace:
        return fitted(key, rate, 1.0, 500, 60)

    def temporary_bytes(tile: int) -> int:
        compiled: Any = collections.OrderedDict()
        monkeypatch.setattr(_programs, "_executables", compiled)
        sweep(large, axes={"rate": np.linspace(0.1, 1, tile)}, seeds=2, tile=tile)
        (program,) = compiled.values()
        return program.result().memory_analysis().temp_size_in_bytes

    rows = 500 * 60 * 4
    assert temporary_bytes(64) - temporary_bytes(16) < 48 * rows / 2


def subset(pool: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(pool), min_size=1, unique=True)


@pytest.mark.slow
@given(rates=subset(RATES), seeds=subset(SEEDS), devices=st.sampled_from([1, 2]))
def test_a_run_has_the_same_bits_among_any_others(
    rates: list[float], seeds: list[int], devices: int
) -> None:
    found = sweep(cell, axes={"rate": rates}, seeds=seeds, tile=4, devices=jax.devices()[:devices])
    assert same_bits(found, reference().sel(rate=rates, seed=seeds))


def test_a_worker_gives_the_same_bits() -> None:
    with ThreadPoolExecutor(1) as executor:
        found = sweep(cell, axes={"rate": RATES}, seeds=SEEDS, tile=4, executor=executor)
    assert same_bits(found, reference())


def test_a_store_grows_seed_by_seed_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "grown.zarr"
    asked: set[tuple[float, int]] = set()
    for rates, seeds in ((RATES[1:3], SEEDS[:2]), (RATES, SEEDS[1:3]), (RATES, SEEDS)):
        before = Store(path).num_tiles if path.exists() else 0
        new = {(rate, seed) for rate in rates for seed in seeds} - asked
        found = sweep(cell, axes={"rate": rates}, seeds=seeds, tile=4, store=path)
        assert same_bits(found, reference().sel(rate=rates, seed=seeds))
        each = collections.Counter(seed for _, seed in new)
        assert Store(path).num_tiles - before == sum(-(-count // 4) for count in each.values())
        asked |= new
    store = Store(path)
    assert store.by_seed
    assert all(store.columns(tile)[0].shape == () for tile in range(store.num_tiles))
    forget(path, [1, 2])
    assert int((~Store(path).done).sum()) == 2 * store.tiles_per_unit
    assert same_bits(sweep(cell, axes={"rate": RATES}, seeds=SEEDS, store=path), reference())


def test_a_store_keeps_its_layout(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "flat.zarr"
    with monkeypatch.context() as earlier:
        earlier.setattr(_jaxprs, "shares_draws", lambda jaxpr: False)
        earlier.setattr(_programs, "_measures", {})
        sweep(cell, axes={"rate": RATES}, seeds=SEEDS[:1], tile=4, store=path)
    found = sweep(cell, axes={"rate": RATES}, seeds=SEEDS, store=path)
    assert not Store(path).by_seed
    np.testing.assert_allclose(found.u, reference().u, rtol=1e-5)


@given(
    points=st.integers(1, 9), seeds=st.integers(1, 4), tile=st.integers(1, 5), by_seed=st.booleans()
)
def test_every_run_is_in_one_unit(points: int, seeds: int, tile: int, by_seed: bool) -> None:
    grid = Grid.make(cell, {"rate": np.arange(points) + 1.0}, np.arange(seeds) + 5)
    units = Units(grid, tile, by_seed)
    runs = [units.runs(unit) for unit in range(units.number)]
    assert sorted(np.concatenate(runs)) == list(range(grid.size))
    owner = units.spread(np.arange(units.number))
    for unit, own in enumerate(runs):
        assert (owner[own] == unit).all()
        seed, rates = units.columns(unit, np.float32)
        expected = grid.runs(own)
        np.testing.assert_array_equal(rates[: len(own)], expected[1])
        np.testing.assert_array_equal(np.broadcast_to(seed, tile)[: len(own)], expected[0])
        assert rates.shape == (tile,)
        assert seed.shape == (() if by_seed else (tile,))


def test_the_runs_of_a_failed_unit_are_named() -> None:
    units = Units(Grid.make(cell, {"rate": RATES}, SEEDS), 4, by_seed=True)
    failed = [Failure(7, ValueError("no"))]
    message = message_of(failed, lambda unit: units.columns(unit, np.float32), ["rate"], "rest")
    assert "seed 7, rate 1.6 to 3.2: no" in message


mark = random.shareable
LOOPS = jax.lax


def carried(body: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Three steps of a loop over a pair that begins with the seed twice."""
    return lambda seed, value: LOOPS.fori_loop(
        0, 3, lambda _, pair: body(pair, value), (seed, seed)
    )


def scanned(body: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda seed, value: LOOPS.scan(
        lambda pair, _: (body(pair, value), None), (seed, seed), None, length=3
    )


def kept(pair: Any, value: Any) -> Any:
    return mark(pair[0]), pair[1] + value


def handed_on(pair: Any, value: Any) -> Any:
    """The value reaches the mark in the third step."""
    return mark(pair[0]) + 0 * pair[1], value


PROGRAMS = {
    "seed": (lambda seed, value: mark(seed) + value, True),
    "value": (lambda seed, value: mark(seed + value), False),
    "neither": (lambda seed, value: mark(jnp.ones(3)) + seed, False),
    "unmarked": (lambda seed, value: seed + value, False),
    "in jit": (lambda seed, value: jax.jit(lambda x, y: mark(x) + y)(seed, value), True),
    "in while": (carried(kept), True),
    "late in while": (carried(handed_on), False),
    "in scan": (scanned(kept), True),
    "late in scan": (scanned(handed_on), False),
    "while value": (
        lambda seed, value: mark(LOOPS.while_loop(lambda x: x < value, lambda x: x + 1, seed)),
        False,
    ),
    "if seed": (
        lambda seed, value: mark(LOOPS.cond(seed > 0, lambda: seed, lambda: -seed)) + value,
        True,
    ),
    "if value": (
        lambda seed, value: mark(LOOPS.cond(value > 0, lambda: seed, lambda: -seed)),
        False,
    ),
    "in if": (
        lambda seed, value: LOOPS.cond(value > 0, lambda: mark(seed), lambda: -seed),
        True,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_marked_numbers_depend_on(name: str) -> None:
    program, expected = PROGRAMS[name]
    jaxpr = jax.make_jaxpr(lambda root, seed, value: program(seed, value))(0.0, 1.0, 2.0)
    assert _jaxprs.shares_draws(jaxpr.jaxpr) is expected
