"""One compiled program serves all cores, and gives the same bits on any number of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

from causal_sgd import run, sweep
from causal_sgd.experiment import Experiment
from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sweeps import _programs
from causal_sgd.sweeps._tiles import lay_out_tiles
from causal_sgd.training import samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Snapshot, Trace
from support.sweeps import COMPILATIONS, same_bits


def cell_of(steps: int, metric: Any = metrics.invariant_error) -> Callable[..., Trace]:
    """A cell; each number of steps is another program."""

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
        return run(key, algorithm=algorithm, metrics=[metric], num_steps=steps)

    return cell


def swept(cell: Callable[..., Trace], devices: list[jax.Device]) -> Any:
    return sweep(cell, axes={"spread": [1.0, 4.0]}, seeds=6, tile=4, devices=devices)


@pytest.mark.slow
def test_a_sweep_on_two_cores_compiles_once_and_gives_the_bits_of_one() -> None:
    first, second = jax.devices()[:2]
    swept(cell_of(6), [first])  # compiles what is small and shared
    COMPILATIONS.clear()
    both = swept(cell_of(7), [first, second])
    assert len(COMPILATIONS) == 1
    COMPILATIONS.clear()
    assert same_bits(swept(cell_of(7), [first]), both)
    assert not COMPILATIONS
    assert same_bits(swept(cell_of(7), [second]), both)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"dim": 20, "sampler": "pooled", "num_environments": 4},
        {"dim": 12, "sampler": "hetero", "measurement": "fixed-design", "num_examples": 90},
        {"dim": 20, "sampler": "hetero", "measurement": "low-rank-law", "rank": 4},
    ],
)
def test_the_number_of_cores_changes_no_bit(fields: dict[str, Any]) -> None:
    options = {"invariant_rank": 2, "spurious_rank": 2, "batch_size": 60, "steps": 40}
    cell = Experiment(**options | fields).cell()
    one, two = (sweep(cell, seeds=12, tile=4, devices=jax.devices()[:n]) for n in (1, 2))
    assert same_bits(one, two)


@pytest.mark.slow
def test_more_cores_than_calls_per_device_use_further_devices(monkeypatch) -> None:
    monkeypatch.setattr(_programs, "CALLS_PER_CPU_DEVICE", 1)
    COMPILATIONS.clear()
    both = swept(cell_of(8), jax.devices()[:2])
    assert len(COMPILATIONS) == 2
    assert same_bits(swept(cell_of(8), jax.devices()[:1]), both)


def test_two_cores_compute_at_the_same_time() -> None:
    """Both tiles wait for each other inside their callbacks."""
    barrier = threading.Barrier(2)

    def meet(snapshot: Snapshot) -> jax.Array:
        def wait(loss: np.ndarray) -> np.float32:
            barrier.wait(timeout=60)
            return np.float32(0)

        shape = jax.ShapeDtypeStruct((), np.float32)
        return jax.pure_callback(wait, shape, snapshot.batch_loss, vmap_method="sequential")

    met = sweep(cell_of(2, meet), axes={"spread": [1.0, 4.0]}, tile=1, devices=jax.devices()[:2])
    assert (met.meet == 0).all()


def test_programs_that_call_python_back_run_on_two_cores() -> None:
    def doubled(snapshot: Snapshot) -> jax.Array:
        shape = jax.ShapeDtypeStruct((), np.float32)
        return jax.pure_callback(
            lambda x: np.float32(2 * x), shape, snapshot.batch_loss, vmap_method="sequential"
        )

    results = swept(cell_of(5, doubled), jax.devices()[:2])
    assert np.isfinite(results.doubled.isel(step=-1)).all()


def test_programs_that_batch_lapack_run_on_one_core() -> None:
    def singular(snapshot: Snapshot) -> jax.Array:
        return jax.numpy.linalg.svd(snapshot.estimate, compute_uv=False)[0]

    cell = cell_of(9, singular)
    program = _programs.Program.make(cell, ("spread",), [np.dtype("float32")], jax.random.key(0))
    assert program.batches_lapack
    both = {"memory": None, "tile": 4, "by_seed": False, "result_bytes": 0}
    assert len(lay_out_tiles(program, jax.devices()[:2], **both)[1]) == 1
