"""A run records its frames, its divergence and its averages."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.training import run, samplers, time_average
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Algorithm, Array, Snapshot, Trace
from support.sweeps import WATCHED, build

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def counter() -> Algorithm:
    """An algorithm whose state counts its updates; the loss of an update is the count before it."""

    model = MatrixModel(lambda key: jnp.zeros(()), lambda count: jnp.ones((2, 2)) * count)

    def snapshot(key: Array, state: tuple[Array, Array]) -> Snapshot:
        count, loss = state
        return Snapshot(count, count, None, loss, model)

    return Algorithm(
        init=lambda key: (jnp.zeros((), jnp.int32), jnp.full((), jnp.nan)),
        step=lambda key, state: (state[0] + 1, state[0].astype(float)),
        snapshot=snapshot,
        loss=lambda state: state[1],
    )


@pytest.mark.parametrize(
    ("num_steps", "every", "frames"),
    [
        (10, 5, [0, 5, 10]),
        (10, 4, [0, 4, 8, 10]),
        (10, None, [0, 10]),
        (10, 100, [0, 10]),
        (3, 1, [0, 1, 2, 3]),
        (1, 1, [0, 1]),
    ],
)
def test_frames_are_the_start_every_so_many_steps_and_the_end(
    num_steps: int, every: int | None, frames: list[int]
) -> None:
    watched = {
        "count": lambda snapshot: snapshot.params,
        "loss": lambda snapshot: snapshot.batch_loss,
    }
    trace = run(
        jax.random.key(0),
        algorithm=counter(),
        metrics=watched,
        num_steps=num_steps,
        record_every=every,
    )
    np.testing.assert_array_equal(trace.step, frames)
    np.testing.assert_array_equal(trace.metrics["count"], frames)
    np.testing.assert_array_equal(
        trace.metrics["loss"], [np.nan, *(frame - 1 for frame in frames[1:])]
    )
    assert trace.diverged_at == -1


def test_metrics_go_by_their_own_names_or_given_ones() -> None:
    def doubled(snapshot: Snapshot) -> Array:
        return 2 * snapshot.params

    key = jax.random.key(0)
    listed = run(key, algorithm=counter(), metrics=[doubled], num_steps=2)
    mapped = run(key, algorithm=counter(), metrics={"mine": doubled}, num_steps=2)
    np.testing.assert_array_equal(listed.metrics["doubled"], mapped.metrics["mine"])


@pytest.mark.parametrize("law", [pytest.param(True, marks=pytest.mark.slow), False])
def test_divergence_is_found_where_a_plain_loop_finds_it(law: bool) -> None:
    key, steps = jax.random.key(3), 30
    rates = np.array([0.1, 0.7, 1.0, 3.0, 1e3, 1e4, 1e6, 1e8, 1e10, 1e12, 1e15])

    def algorithm(rate: Any) -> Algorithm:
        return build(learning_rate=rate, law=law)

    @functools.partial(jax.jit, static_argnames="steps")
    def many(rates: Array, steps: int) -> Trace:
        def one(rate: Array) -> Trace:
            return run(key, algorithm=algorithm(rate), metrics=WATCHED, num_steps=steps)

        return jax.vmap(one)(rates)

    @jax.jit
    def advance(rate: Array, state: Any) -> tuple[Any, Array, Array]:
        state = algorithm(rate).step(key, state)
        return (
            state,
            algorithm(rate).loss(state),
            jnp.isfinite(algorithm(rate).snapshot(key, state).estimate).all(),
        )

    @jax.jit
    def initial(rate: Array) -> Any:
        return algorithm(rate).init(key)

    def plainly(rate: float) -> tuple[int, int]:
        """The first updates at which the loss and the estimate are not finite; -1 for never."""
        state, losses, estimates = initial(rate), [], [True]
        for _ in range(steps):
            state, loss, fine = advance(rate, state)
            losses.append(bool(np.isfinite(loss)))
            estimates.append(bool(fine))
        return tuple(found.index(False) if False in found else -1 for found in (losses, estimates))

    expected = [plainly(rate) for rate in rates]
    by_loss = [loss for loss, _ in expected]
    assert by_loss[0] == -1
    assert len(set(by_loss)) >= 4, f"the rates should diverge at different steps, not at {by_loss}"
    np.testing.assert_array_equal(many(rates, steps).diverged_at, by_loss)
    # A run that ends with the blow-up has no later loss; the estimate shows it.
    index, last = next(
        (index, both[1]) for index, both in enumerate(expected) if both[0] == both[1] > 0
    )
    assert many(rates, last).diverged_at[index] == last


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "optimizer"),
    [("hetero", "sgd"), ("mixed", "adam")],
)
def test_the_diagonal_model_is_the_factored_one_by_population_gradients(
    sampler: str, optimizer: str
) -> None:
    options = {"environments_per_batch": 3} if sampler == "mixed" else {}

    def trace(model: Any) -> Trace:
        algorithm = sgd(
            world=worlds.two_point(
                dim=7, invariant_rank=2, spurious_rank=2, spread=3.0, basis="canonical"
            ),
            sampler=getattr(samplers, sampler)(batch_size=12, **options),
            measurement=measurements.population(),
            model=model,
            optimizer=getattr(optax, optimizer)(0.05),
        )
        names = set(metrics.__all__) - {"imbalance", "layer_alignment"}  # of several factors
        every = {name: getattr(metrics, name) for name in sorted(names)}
        return jax.jit(
            lambda key: run(key, algorithm=algorithm, metrics=every, num_steps=40, record_every=10)
        )(jax.random.key(3))

    full, reduced = (
        trace(models.factored(dim=7, init_scale=0.1)),
        trace(models.diagonal(dim=7, init_scale=0.1)),
    )
    assert set(full.metrics) == set(reduced.metrics)
    for name, values in full.metrics.items():
        np.testing.assert_allclose(
            reduced.metrics[name], values, rtol=2e-4, atol=2e-5, err_msg=name
        )
    assert float(full.metrics["spurious_signal"][-1]) > 0.1


@pytest.mark.parametrize("change", [{"basis": "random"}, {"basis": "canonical", "tilt": 0.3}])
def test_the_diagonal_model_refuses_signals_that_are_not_diagonal(change: dict[str, Any]) -> None:
    algorithm = sgd(
        world=worlds.two_point(dim=7, invariant_rank=2, spurious_rank=2, spread=3.0, **change),
        sampler=samplers.hetero(batch_size=12),
        measurement=measurements.population(),
        model=models.diagonal(dim=7),
        optimizer=optax.sgd(0.05),
    )
    refused = functools.partial(
        run, algorithm=algorithm, metrics=[metrics.spurious_signal], num_steps=3
    )
    assert jax.jit(refused)(jax.random.key(0)).diverged_at == 0


def test_a_time_average_leaves_out_the_transient() -> None:
    trace = run(
        jax.random.key(0),
        algorithm=counter(),
        metrics={"count": lambda snapshot: jnp.stack([snapshot.params, 2 * snapshot.params])},
        num_steps=10,
        record_every=1,
    )
    for after, mean in ((0.0, 5.5), (0.5, 8.0), (0.9, 10.0)):
        average = time_average(trace, after=after)
        np.testing.assert_array_equal(average.step, [10])
        np.testing.assert_allclose(average.metrics["count"], [[mean, 2 * mean]])
        assert average.diverged_at == -1
