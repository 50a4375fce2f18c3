"""Whatever can be called like a cell is one; what returns no run is refused before computing."""

from __future__ import annotations

import dataclasses
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

from causal_sgd.sweeps import compare, sweep
from causal_sgd.types import Trace
from support.cases import few
from support.sweeps import COMPILATIONS, trace_of


@dataclasses.dataclass
class Plain:
    """Has no hash."""

    factor: float = 2.0

    def __call__(self, key: jax.Array, *, x: Any) -> Trace:
        return trace_of(x * self.factor)

    def method(self, key: jax.Array, *, x: Any) -> Trace:
        return self(key, x=x)

    @staticmethod
    def static(key: jax.Array, *, x: Any) -> Trace:
        return trace_of(x * 2)


class Frozen(Plain):
    """Has a hash, of its fields."""

    def __hash__(self) -> int:
        return hash(self.factor)


@dataclasses.dataclass(slots=True)
class Slotted:
    """Has no weak references."""

    factor: float = 2.0

    def __call__(self, key: jax.Array, *, x: Any) -> Trace:
        return trace_of(x * self.factor)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Module:
    """A pytree of arrays, as a module of equinox: its hash fails, and == gives arrays."""

    factors: Any

    def __call__(self, key: jax.Array, *, x: Any) -> Trace:
        return trace_of((x * self.factors).sum())

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.factors,), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any]) -> Module:
        return cls(*leaves)


def scaled(key: jax.Array, *, x: Any, factor: float) -> Trace:
    return trace_of(x * factor)


CELLS: dict[str, Callable[[], Callable[..., Trace]]] = {
    "dataclass": Plain,
    "frozen": Frozen,
    "slots": Slotted,
    "module": lambda: Module(jnp.ones(2)),
    "module of numpy": lambda: Module(np.ones(2, np.float32)),
    "method": lambda: Plain().method,
    "static method": lambda: Plain.static,
    "partial": lambda: functools.partial(scaled, factor=2.0),
    "jitted": lambda: jax.jit(Plain()),
    "jitted partial": lambda: jax.jit(functools.partial(scaled, factor=2.0)),
    "lambda": lambda: lambda key, x: trace_of(2 * x),
}


@pytest.mark.parametrize("kind", few(CELLS, ["dataclass", "slots", "module", "partial", "jitted"]))
@pytest.mark.parametrize("threads", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_kind_of_cell_is_swept_and_stored(kind: str, threads: bool, tmp_path: Path) -> None:
    cell, path = CELLS[kind](), tmp_path / "runs.zarr"
    with ThreadPoolExecutor(1) as pool:
        options = {"executor": pool if threads else None, "tile": 2, "axes": {"x": [1.0, 3.0]}}
        for seeds in (1, 2):
            runs = sweep(cell, store=path, seeds=seeds, **options)
            np.testing.assert_array_equal(runs.u[:, :, -1], [[2] * seeds, [6] * seeds])
            COMPILATIONS.clear()
        sweep(cell, **options)
    assert not COMPILATIONS


def batch_of_traces(key: jax.Array) -> Trace:
    return jax.vmap(lambda k: trace_of(jax.random.uniform(k)))(jax.random.split(key, 3))


def jitted_batch(key: jax.Array) -> Trace:
    return jax.jit(batch_of_traces)(key)


ONE = Trace(jnp.arange(2), {"u": jnp.ones(2)}, jnp.asarray(-1))
RUN = r"the Trace of one run, with step \[F\], diverged_at \[\] and metrics \[F, ...\], got "


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (batch_of_traces, RUN + r"step \(3, 2\), diverged_at \(3,\), u \(3, 2\); sweep runs over"),
        (jitted_batch, RUN + r"step \(3, 2\)"),
        (lambda key: ONE._replace(step=jnp.asarray(0)), RUN + r"step \(\)"),
        (lambda key: ONE._replace(diverged_at=jnp.zeros(2)), RUN),
        (lambda key: ONE._replace(metrics={"u": jnp.ones(())}), RUN + r".* u \(\)"),
        (lambda key: ONE._replace(metrics={"u": jnp.ones(2), "v": jnp.ones(3)}), RUN),
        (lambda key: ONE._replace(metrics=jnp.ones(2)), "the Trace that `run` gives, got one"),
        (
            lambda key: ONE._replace(metrics={"u": {"v": jnp.ones(2)}}),
            "the Trace that `run` gives, got one",
        ),
        (lambda key: ONE._replace(metrics={"u": None}), "the Trace that `run` gives, got one"),
        (lambda key: None, "the Trace that `run` gives, got NoneType"),
        (lambda key: [ONE, ONE], "the Trace that `run` gives, got list"),
        (lambda key: tuple(ONE), "the Trace that `run` gives, got tuple"),
    ],
)
def test_what_is_no_run_is_refused_before_anything_is_compiled(cell: Any, message: str) -> None:
    COMPILATIONS.clear()
    with pytest.raises(ValueError, match="cell must return " + message):
        sweep(cell)
    with pytest.raises(ValueError, match="cell must return " + message):
        compare({"one": lambda key: ONE, "other": cell})
    assert not COMPILATIONS


def branching(key: jax.Array, *, x: Any) -> Trace:
    return trace_of(x if x > 1.5 else -x)


def read_by_numpy(key: jax.Array, *, x: Any) -> Trace:
    return trace_of(jnp.asarray(np.sin(x)))


def counting(key: jax.Array, *, x: Any) -> Trace:
    return trace_of(jnp.asarray(float(len(range(x)))))


def with_a_swept_peak(key: jax.Array, *, x: Any) -> Trace:
    return trace_of(optax.warmup_cosine_decay_schedule(0.0, x, 2, 9)(1))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (branching, "must not branch on 'x' in Python.*jnp.where.*`compare`.*test_cells.py"),
        (with_a_swept_peak, "must not branch on .*give them 1 and multiply by the swept peak"),
        (read_by_numpy, "must compute with its key and its swept.*jax.numpy.*test_cells.py"),
        (counting, "must compute with its key and its swept.*a number that fixes a shape"),
    ],
)
def test_a_cell_that_needs_the_numbers_of_its_parameters_is_refused(
    cell: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        sweep(cell, axes={"x": [1, 2]})
    assert "\n" not in str(error.value)
    assert ("optax" in str(error.value)) == (cell is with_a_swept_peak)
