"""A sweep sees what its cell reads now, and compiles nothing where that did not change."""

from __future__ import annotations

import functools
import gc
import itertools
import multiprocessing
import types
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import support.sweeps
from causal_sgd import checks, refine, run, sweep
from causal_sgd.sweeps import SweepError, _jaxprs
from causal_sgd.sweeps._executors import OTHER_PROGRAM, Job, compute
from causal_sgd.sweeps._programs import TracedCell
from causal_sgd.sweeps.store import StoreError
from causal_sgd.types import Trace
from support.cases import few
from support.sweeps import COMPILATIONS, build, trace_of

FACTOR = 1.0
MODULE = types.ModuleType("settings")


def last(cell: Callable[..., Trace], **options: Any) -> float:
    """The number at the end of the run at x = 3."""
    return float(sweep(cell, axes={"x": [3.0]}, tile=2, **options).u[0, 0, -1])


def by_global() -> tuple[Callable[..., Trace], Callable[[float], None]]:
    def cell(key: jax.Array, *, x: Any) -> Trace:
        return trace_of(x * FACTOR)

    return cell, lambda value: globals().update(FACTOR=value)


def by_closure() -> tuple[Callable[..., Trace], Callable[[float], None]]:
    factor = 1.0

    def cell(key: jax.Array, *, x: Any) -> Trace:
        return trace_of(jax.lax.fori_loop(0, 1, lambda _, carry: carry * factor, x))

    def change(value: float) -> None:
        nonlocal factor
        factor = value

    return cell, change


def by_attribute() -> tuple[Callable[..., Trace], Callable[[float], None]]:
    class Scaled:
        factor = 1.0

        def __call__(self, key: jax.Array, *, x: Any) -> Trace:
            return trace_of(x * self.factor)

    cell = Scaled()
    return cell, lambda value: setattr(cell, "factor", value)


def by_array() -> tuple[Callable[..., Trace], Callable[[float], None]]:
    factors = np.ones(3, np.float32)

    def cell(key: jax.Array, *, x: Any) -> Trace:
        return trace_of((x * factors).mean())

    return cell, factors.fill


def by_array_of_jax() -> tuple[Callable[..., Trace], Callable[[float], None]]:
    held = {"factors": jnp.ones(3)}

    def cell(key: jax.Array, *, x: Any) -> Trace:
        return trace_of((x * held["factors"]).mean())

    return cell, lambda value: held.update(factors=jnp.full(3, value))


def by_module() -> tuple[Callable[..., Trace], Callable[[float], None]]:
    setattr(MODULE, "factor", 1.0)  # noqa: B010  # unknown to type checkers

    @jax.jit
    def cell(key: jax.Array, *, x: Any) -> Trace:
        return trace_of(x * MODULE.factor)

    return cell, lambda value: setattr(MODULE, "factor", value)


def by_callback() -> tuple[Callable[..., Trace], Callable[[float], None]]:
    factor = 1.0

    def cell(key: jax.Array, *, x: Any) -> Trace:
        kept, shape = factor, jax.ShapeDtypeStruct((), np.float32)
        scaled = jax.pure_callback(
            lambda x: np.float32(x * kept), shape, x, vmap_method="sequential"
        )
        return trace_of(scaled)

    def change(value: float) -> None:
        nonlocal factor
        factor = value

    return cell, change


WAYS = {
    way.__name__: way
    for way in (
        by_global,
        by_closure,
        by_attribute,
        by_array,
        by_array_of_jax,
        by_module,
        by_callback,
    )
}


@pytest.mark.parametrize(
    "way", few(WAYS, ["by_global", "by_attribute", "by_module", "by_callback"])
)
def test_a_sweep_sees_what_changed_and_compiles_nothing_that_did_not(way: str) -> None:
    cell, change = WAYS[way]()
    change(1.0)
    assert last(cell) == 3
    COMPILATIONS.clear()
    assert last(cell) == 3
    assert not COMPILATIONS
    change(2.0)
    assert last(cell) == 6
    COMPILATIONS.clear()
    change(1.0)
    assert last(cell) == 3
    # A copy of the array is another array; what a sweep of equal numbers compiled serves it.
    assert not COMPILATIONS


def test_a_changed_cell_does_not_enter_the_store_of_the_other(tmp_path) -> None:
    cell, change = by_global()
    change(1.0)
    assert last(cell, store=tmp_path / "runs.zarr") == 3
    change(2.0)
    with pytest.raises(StoreError, match="the cell computes something else"):
        sweep(cell, axes={"x": [3.0]}, seeds=2, store=tmp_path / "runs.zarr")


def test_threads_of_an_executor_see_what_changed() -> None:
    cell, change = by_module()
    with ThreadPoolExecutor(1) as executor:
        assert last(cell, executor=executor) == 3
        change(2.0)
        assert last(cell, executor=executor) == 6


def test_a_worker_that_sees_another_program_refuses_to_compute() -> None:
    cell, change = by_global()
    change(1.0)
    traced, root = TracedCell(cell), jax.random.key(0)
    columns = (np.zeros(2, np.uint32), np.full(2, 3, np.float32))
    program = traced.program(("x",), [np.dtype("float32")], root)
    job = Job.make(traced, ("x",), root).pickled()
    (outcome,) = compute(job, [columns], program.fingerprint).outcomes
    assert isinstance(outcome, Trace)
    assert outcome.metrics["u"][0, -1] == 3
    (outcome,) = compute(job, [columns], "another").outcomes
    assert isinstance(outcome, RuntimeError)
    assert str(outcome) == OTHER_PROGRAM


def test_a_refinement_traces_the_cell_once() -> None:
    calls, corners = [], []

    def cell(key: jax.Array, *, x: Any, y: Any) -> Trace:
        (calls if checks.concrete(x) is None else corners).append(x)
        return trace_of(x**2 + y**2 - 2 + jax.random.normal(key) / 10)

    values = np.linspace(0, 2, 17)
    diagram = refine(cell, axes={"x": values, "y": values}, metric="u", level=0.0)
    assert diagram.done.any()
    assert len(corners) > 10, "it should take several requests"
    assert len(calls) == 2  # to measure, and for the tile


def test_a_repeated_sweep_traces_the_cell_once_and_checks_what_is_new() -> None:
    calls, limit = [], 10.0

    def cell(key: jax.Array, *, x: Any) -> Trace:
        calls.append(x)
        return trace_of(checks.number("x", x, maximum=limit) * limit)

    def traces(*values: float) -> int:
        calls.clear()
        sweep(cell, axes={"x": list(values)}, tile=16)
        return len(calls)

    assert traces(1.0, 2.0) == 3  # both ends, and the program
    assert traces(1.0, 2.0) == traces(2.0, 1.0) == 1
    assert traces(1.0, 3.0) == 2
    with pytest.raises(ValueError, match="x must be a finite number at most 10, got 12"):
        traces(1.0, 12.0)
    limit = 1.5
    with pytest.raises(ValueError, match="x must be a finite number at most 1.5, got 2"):
        traces(1.0, 2.0)


def test_a_program_is_measured_once(monkeypatch) -> None:
    measured = []
    original = _jaxprs.shared_bytes
    monkeypatch.setattr(
        _jaxprs, "shared_bytes", lambda jaxpr: measured.append(jaxpr) or original(jaxpr)
    )
    for factor in (1.2345, 1.2345, 1.5432):  # of no other test
        sweep(lambda key, *, x, by=factor: trace_of(x * by), axes={"x": [3.0]}, tile=2)
    assert len(measured) == 2


@pytest.mark.slow
def test_a_large_constant_is_hashed_once(monkeypatch) -> None:
    hashed: list[tuple[int, ...]] = []
    original = _jaxprs._hash
    monkeypatch.setattr(
        _jaxprs, "_hash", lambda array, kind: hashed.append(array.shape) or original(array, kind)
    )
    held = [jnp.ones(1000) / 1000]

    def cell(key: jax.Array, *, x: Any) -> Trace:
        return trace_of((x * held[0]).sum())

    for _ in range(3):
        assert last(cell) == pytest.approx(3)
    assert hashed.count((1000,)) == 1
    place = id(held[0])
    assert place in _jaxprs._digests
    held.clear()
    gc.collect()
    assert place not in _jaxprs._digests


@pytest.mark.slow
def test_a_sweep_holds_neither_its_cell_nor_its_data() -> None:
    def made() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
        factors = jnp.arange(5.0)

        def cell(key: jax.Array, *, x: Any) -> Trace:
            return trace_of((x * factors).sum())

        assert last(cell) == 30
        return weakref.ref(cell), weakref.ref(factors)

    cell, factors = made()
    gc.collect()
    assert cell() is None
    assert factors() is None


# Fingerprints


def fingerprint(function: Callable[..., Any]) -> str:
    return _jaxprs.fingerprint(jax.jit(function).trace(jnp.ones(3)).jaxpr)


def test_a_fingerprint_is_the_same_where_text_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """In terminals and notebooks, but not in the workers of a cluster."""
    plain = fingerprint(jnp.sin)
    monkeypatch.setattr("jax._src.pretty_printer.CAN_USE_COLOR", True)
    assert "\x1b" in str(jax.make_jaxpr(jnp.sin)(1.0))
    assert fingerprint(jnp.sin) == plain


def test_every_number_of_a_program_enters_its_fingerprint() -> None:
    def programs(number: np.float32) -> list[Callable[..., Any]]:
        array = jnp.full(2000, number)
        inner, plain = jax.jit(lambda x: x * array[:3]), np.full(2000, number)
        differentiable = jax.custom_jvp(lambda x: x * array[1000:1003])
        differentiable.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
        return [
            lambda x: x * number,
            lambda x: x * array[:3],
            lambda x: x * plain[1000:1003].max() + jnp.asarray(plain)[:3],
            inner,
            lambda x: jax.lax.scan(lambda c, _: (c * array[:3], None), x, None, length=2)[0],
            lambda x: jax.lax.cond(x[0] > 0, lambda: array[:3], lambda: x),
            differentiable,
            jax.checkpoint(lambda x: x * array[:3]),
        ]

    one, same, other = (
        [fingerprint(f) for f in programs(np.float32(number))]
        for number in (0.1, 0.1, np.nextafter(np.float32(0.1), np.float32(1)))
    )
    assert one == same
    assert all(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "bool", "int8", "complex64", "uint32"])
def test_constants_of_every_type_enter_the_fingerprint(dtype: str) -> None:
    zeros, ones = jnp.zeros((), dtype), jnp.ones((), dtype)
    assert fingerprint(lambda x: (x, zeros)) != fingerprint(lambda x: (x, ones))


def test_callbacks_are_equal_where_they_compute_the_same() -> None:
    def called(function: Callable[..., Any]) -> Any:
        shape = jax.ShapeDtypeStruct((), np.float32)
        traced = jax.jit(lambda x: jax.pure_callback(function, shape, x)).trace(1.0)
        return _jaxprs.callbacks(traced.jaxpr.jaxpr)

    def of(value: Any) -> Callable[..., Any]:
        return lambda x: np.float32(x * value)

    def recursive() -> Callable[..., Any]:
        def again(x: Any) -> Any:
            return np.float32(x) if x < 0 else again(x - 1)

        return again

    def added(x: Any, y: float) -> Any:
        return np.float32(x + y)

    held = [1.0]
    for make, value, other in (
        (of, 0.0, -0.0),
        (of, 1, 1.0),
        (of, 1, True),
        (of, held, [1.0]),
        (lambda y: functools.partial(added, y=y), 1.0, 2.0),
        (lambda c: functools.partial(types.MethodType(lambda c, x: x, c)), held, [1.0]),
    ):
        assert called(make(value)) == called(make(value))
        assert called(make(value)) != called(make(other))
        assert hash(called(make(value))) == hash(called(make(value)))
    assert called(recursive()) != called(recursive())  # compiled again, which is right but slower


# Names and keys


def named(name: str) -> Callable[..., Trace]:
    def cell(key: jax.Array, *, x: Any) -> Trace:
        return trace_of(x * 7, name)

    return cell


@pytest.mark.parametrize(
    ("stored", "threads"),
    few(itertools.product((False, True), (False, True)), [(True, False)]),
)
def test_cells_that_differ_in_names_share_a_program(stored: bool, threads: bool, tmp_path) -> None:
    with ThreadPoolExecutor(1) as pool:
        for name in ("u", "v"):
            dataset = sweep(
                named(name),
                axes={"x": [1.0, 2.0]},
                tile=2,
                executor=pool if threads else None,
                store=tmp_path / name if stored else None,
            )
            np.testing.assert_array_equal(dataset[name][:, 0, -1], [7, 14])
            assert name == "u" or "u" not in dataset
            if name == "u":
                COMPILATIONS.clear()
    assert not COMPILATIONS


KEYS = {
    "default": lambda: jax.random.key(5),
    "rbg": lambda: jax.random.key(5, impl="rbg"),
    "several": lambda: jax.random.split(jax.random.key(5), 3)[0],
    "raw": lambda: jax.random.PRNGKey(5),
}


@pytest.mark.parametrize(
    ("kind", "threads"),
    few(itertools.product(KEYS, (False, True)), [("default", False)]),
)
def test_a_key_made_outside_the_cell_is_shared_by_all_seeds(kind: str, threads: bool) -> None:
    outside, other = KEYS[kind](), jax.random.fold_in(KEYS[kind](), 1)

    def of(fixed: jax.Array) -> Callable[..., Trace]:
        def cell(key: jax.Array, *, x: Any) -> Trace:
            def inner(_: Any, count: jax.Array) -> jax.Array:
                return count + jax.random.bits(fixed, dtype=np.uint8)

            return trace_of(x * jax.lax.fori_loop(0, 2, inner, jnp.zeros((), jnp.uint8)))

        return cell

    with ThreadPoolExecutor(1) as pool:
        options = {"seeds": 3, "tile": 3, "executor": pool if threads else None}
        runs, others = (
            sweep(of(fixed), axes={"x": [1.0]}, **options).u[0, :, -1].values
            for fixed in (outside, other)
        )
    expected = 2 * jax.random.bits(outside, dtype=np.uint8)
    np.testing.assert_array_equal(runs, np.full(3, expected))
    assert (runs != others).all()


@pytest.mark.slow
def test_all_seeds_may_share_one_world() -> None:
    shared = jax.random.key(9)

    def cell(key: jax.Array, *, spread: Any) -> Trace:
        algorithm = build(spread=spread, basis="random")
        parts = algorithm.init(shared)
        snapshot = algorithm.snapshot(shared, parts)
        world = {"basis": lambda _: snapshot.world.spurious_basis}
        return run(key, algorithm=algorithm, metrics=world, num_steps=2)

    basis = sweep(cell, axes={"spread": [1.0]}, seeds=3).basis
    assert (basis == basis.isel(seed=0)).all()


@pytest.mark.slow
def test_a_process_that_sees_another_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of an imported module is not sent to the workers."""

    def cell(key: jax.Array, *, x: Any) -> Trace:
        return trace_of(x * support.sweeps.FACTOR)

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert last(cell, executor=pool) == 3
        monkeypatch.setattr(support.sweeps, "FACTOR", 2.0)
        with pytest.raises(SweepError, match="in this worker the cell is another program"):
            last(cell, executor=pool)
    assert last(cell) == 6
