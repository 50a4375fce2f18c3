"""Steps by hand, outside of any trace: they compile once, and see what their parts read."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import random
from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.training import algorithms, objectives, samplers
from support.cases import few
from support.contracts import ALGORITHMS, MEASUREMENTS, SAMPLERS, make
from support.sweeps import COMPILATIONS

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY = jax.random.key(0)
RATE = 0.1
# Measurements that need a model and a world of their own, which federated methods refuse.
REDUCED = {"order_parameter_law", "order_parameter_limit"}
FEDERATED = {"fedavg", "fedprox", "scaffold"}
LOOPS = {"low_rank_law", "fixed_design", "examples"}  # op by op they compile a loop or a branch


def method(name: str = "sgd", **parts: Any) -> Any:
    defaults = {
        "world": worlds.two_point(dim=4, invariant_rank=1, spurious_rank=1),
        "sampler": samplers.cyclic(batch_size=8),
        "measurement": measurements.population(),
        "model": models.factored(dim=4),
        "optimizer": optax.sgd(0.1),
    }
    return getattr(algorithms, name)(**(defaults | parts))


def measured_by(name: str) -> dict[str, Any]:
    """A measurement, with the model and the world that it needs."""
    parts = {"measurement": make("measurements", name, **MEASUREMENTS[name].numbers)}
    if name not in REDUCED:
        return parts
    model = models.order_parameters(dim=50, rank=2, frame=2)
    world = worlds.two_point(dim=2, invariant_rank=1, spurious_rank=1)
    return parts | {"model": model, "world": worlds.reduced(world, rows=model.rows)}


def compilations_of(algorithm: Any, state: Any, steps: int = 1) -> int:
    before = len(COMPILATIONS)
    for _ in range(steps):
        state = algorithm.step(KEY, state)
    return len(COMPILATIONS) - before


CASES = [
    *itertools.product(["sgd"], SAMPLERS, ["population"]),
    *itertools.product(ALGORITHMS, ["hetero", "pooled"], MEASUREMENTS),
]
CASES = [case for case in dict.fromkeys(CASES) if not (case[0] in FEDERATED and case[2] in REDUCED)]

QUICK = {("sgd", "cyclic", "population"), ("sgd", "hetero", "completion")}
# Each algorithm, and the measurements with the longest programs.
SLOW = {(name, "pooled", "population") for name in ALGORITHMS} | {
    ("sgd", "pooled", name) for name in ("gaussian_law", "fixed_design", "examples")
}


@pytest.mark.parametrize(("name", "sampler", "measurement"), few(CASES, QUICK, SLOW))
def test_steps_compile_once(name: str, sampler: str, measurement: str) -> None:
    numbers: dict[str, Any] = dict(SAMPLERS[sampler].numbers) | {"batch_size": 8}
    needs = {"fedprox": {"proximal": 0.5}, "penalised": {"objective": objectives.mean()}}
    algorithm = method(
        name,
        sampler=make("samplers", sampler, **numbers),
        **measured_by(measurement),
        **needs.get(name, {}),
    )
    state = jax.jit(algorithm.init)(KEY)
    first = algorithm.step(KEY, state)
    assert compilations_of(algorithm, first, steps=2) == 0
    jax.tree.map(
        np.testing.assert_array_equal, first.params, jax.jit(algorithm.step)(KEY, state).params
    )


def test_within_a_trace_a_step_is_the_one_that_was_written() -> None:
    step = method().step
    state = jax.eval_shape(method().init, KEY)
    inside = jax.make_jaxpr(step)(KEY, state)
    assert str(inside) == str(jax.make_jaxpr(step.__wrapped__)(KEY, state))
    assert "step" not in str(inside)


def test_functions_of_the_user_are_seen_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def schedule(count: Any) -> Any:
        seen.append(count)
        return RATE + 0 * count

    algorithm = method(optimizer=optax.sgd(schedule))
    state = jax.jit(algorithm.init)(KEY)
    before = algorithm.step(KEY, state).params
    monkeypatch.setitem(globals(), "RATE", 0.2)
    after = algorithm.step(KEY, state).params
    np.testing.assert_allclose(after - state.params, 2 * (before - state.params), rtol=1e-5)
    assert len(seen) == 2
    assert not any(isinstance(count, jax.core.Tracer) for count in seen)


@pytest.mark.slow
def test_arrays_that_change_in_place_are_seen() -> None:
    size: Any = np.array(4)
    algorithm = method(
        sampler=samplers.cyclic(batch_size=size), measurement=measurements.gaussian_law()
    )
    state = jax.jit(algorithm.init)(KEY)
    algorithm.step(KEY, state)
    size[...] = 400
    assert algorithm.step(KEY, state).loss == jax.jit(algorithm.step.__wrapped__)(KEY, state).loss


@pytest.mark.parametrize(
    "name", few(sorted(MEASUREMENTS.keys() - LOOPS), {}, {"streamed", "completion"})
)
def test_parts_of_the_user_leave_the_measurements_without_loops(name: str) -> None:
    algorithm = method(**measured_by(name), optimizer=optax.sgd(lambda count: 0.1 + 0 * count))
    state = jax.jit(algorithm.init)(KEY)
    for _ in range(2):
        state = algorithm.step(KEY, state)
    assert compilations_of(algorithm, state) == 0


def test_draws_by_hand_are_those_of_a_program() -> None:
    def draw(key: jax.Array) -> Any:
        return random.normals(key, 40, jnp.float32), random.subset(key, 9, jnp.asarray(4))

    by_hand = draw(KEY)
    before = len(COMPILATIONS)
    draw(jax.random.key(1))
    assert len(COMPILATIONS) == before
    normals, subset = jax.jit(draw)(KEY)
    np.testing.assert_allclose(by_hand[0], normals, rtol=1e-6)
    np.testing.assert_array_equal(by_hand[1], subset)
