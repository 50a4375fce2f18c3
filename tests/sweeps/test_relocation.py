"""Is a program that was moved to another core the one that would have been compiled there?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import serialize_executable

from causal_sgd import run, sweep
from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sweeps import _programs
from causal_sgd.sweeps._relocation import QUIET, moved
from causal_sgd.training import samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Trace
from support.sweeps import COMPILATIONS

pytestmark = pytest.mark.skipif(not QUIET, reason="this jaxlib would warn of each program")


def cell_of(steps: int, watched: Any = metrics.invariant_error) -> Any:
    """Another number of steps is another program."""

    def cell(key: jax.Array, *, spread: Any) -> Trace:
        algorithm = sgd(
            world=worlds.gaussian(
                dim=4,
                invariant_rank=1,
                spurious_rank=1,
                spread=spread,
                num_environments=3,
                basis="canonical",
            ),
            sampler=samplers.cyclic(batch_size=40),
            measurement=measurements.population(),
            model=models.factored(dim=4),
            optimizer=optax.sgd(0.05),
        )
        return run(key, algorithm=algorithm, metrics=[watched], num_steps=steps)

    return cell


def swept(cell: Any, devices: list[jax.Device]) -> Any:
    return sweep(cell, axes={"spread": [1.0, 4.0]}, seeds=6, tile=4, devices=devices)


def test_a_sweep_on_two_cores_compiles_once_and_gives_the_bits_of_one() -> None:
    first, second = jax.devices()[:2]
    swept(cell_of(6), [first])  # what is small and shared is compiled by now
    COMPILATIONS.clear()
    both = swept(cell_of(7), [first, second])
    assert len(COMPILATIONS) == 1
    COMPILATIONS.clear()
    assert swept(cell_of(7), [second]).equals(both)
    assert not COMPILATIONS


def test_a_moved_program_runs_where_it_was_moved_to() -> None:
    first, second = jax.devices()[:2]

    def forward(key: jax.Array, matrix: jax.Array) -> Any:
        noise = jax.random.normal(key, matrix.shape)
        return jnp.linalg.qr(matrix + noise), jax.lax.fori_loop(
            0, 9, lambda _, m: jnp.tanh(m @ m.T), matrix
        )

    def arguments(device: jax.Device) -> Any:
        return jax.device_put(
            (jax.random.key(0), np.arange(36.0, dtype=np.float32).reshape(6, 6)), device
        )

    plain = jax.jit(forward)
    there = moved(plain.lower(*arguments(first)).compile(), second)
    assert there is not None
    found = there(*arguments(second))
    assert {device for leaf in jax.tree.leaves(found) for device in leaf.devices()} == {second}
    expected = plain.lower(*arguments(second)).compile()(*arguments(second))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_moved_is_compiled(monkeypatch) -> None:
    def refuse(compiled: Any) -> Any:
        raise NotImplementedError("not with this version")

    steps = 8
    monkeypatch.setattr(serialize_executable, "serialize", refuse)
    COMPILATIONS.clear()
    both = swept(cell_of(steps), jax.devices()[:2])
    assert len(COMPILATIONS) == 2
    assert swept(cell_of(steps), jax.devices()[:1]).equals(both)


def test_programs_that_may_come_from_disk_are_not_moved(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(_programs, "moved", None)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        both = swept(cell_of(4), jax.devices()[:2])
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert np.isfinite(both.invariant_error).all()


def test_programs_that_call_python_back_are_not_moved(monkeypatch) -> None:
    def called_back(snapshot: Any) -> jax.Array:
        shape = jax.ShapeDtypeStruct((), np.float32)
        return jax.pure_callback(
            lambda x: np.float32(2 * x), shape, snapshot.batch_loss, vmap_method="sequential"
        )

    monkeypatch.setattr(_programs, "moved", None)
    found = swept(cell_of(5, called_back), jax.devices()[:2])
    assert np.isfinite(found["called_back"].isel(step=-1)).all()
