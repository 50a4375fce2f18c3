"""Runs in the modes of jax that users debug with, and with schedules whose peak is swept."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.training import algorithms, run, samplers
from causal_sgd.types import Trace

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def method_of(name: str, optimizer: Any) -> Any:
    return getattr(algorithms, name)(
        world=worlds.two_point(dim=3, invariant_rank=1, spurious_rank=1, basis="canonical"),
        sampler=samplers.cyclic(batch_size=8),
        measurement=measurements.population(),
        model=models.diagonal(dim=3, init_scale=0.5),
        optimizer=optimizer,
    )


def trained(optimizer: Any, method: str = "sgd", steps: int = 3) -> Trace:
    """A short run that nothing compiles as a whole."""
    return run(
        jax.random.key(0),
        algorithm=method_of(method, optimizer),
        metrics=[metrics.spurious_signal],
        num_steps=steps,
    )


def test_a_run_starts_where_nans_are_debugged() -> None:
    with jax.debug_nans(True):
        state = method_of("sgd", optax.sgd(0.1)).init(jax.random.key(0))
    assert np.isnan(state.loss)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sgd", "fedavg", "scaffold"])
def test_a_run_without_compilation_is_the_run(method: str) -> None:
    compiled = trained(optax.sgd(0.1), method).metrics["spurious_signal"]
    with jax.disable_jit():
        plain = trained(optax.sgd(0.1), method).metrics["spurious_signal"]
    with jax.debug_nans(True):
        checked = trained(optax.sgd(0.1), method).metrics["spurious_signal"]
    np.testing.assert_allclose(plain, compiled, rtol=1e-5)
    np.testing.assert_array_equal(checked, compiled)


@pytest.mark.slow
def test_the_peak_of_a_schedule_is_swept_as_a_factor() -> None:
    def last(rate: Any) -> jax.Array:
        return trained(optax.sgd(rate), steps=10).metrics["spurious_signal"][-1]

    def shape(step: Any, peak: Any = 1.0) -> Any:
        return optax.warmup_cosine_decay_schedule(0.0, peak, 3, 10)(step)

    peaks = jnp.array([0.05, 0.2])
    swept = jax.jit(jax.vmap(lambda peak: last(lambda step: peak * shape(step))))(peaks)
    expected = [last(lambda step, peak=float(peak): shape(step, peak)) for peak in peaks]
    np.testing.assert_allclose(swept, expected, rtol=1e-5)
