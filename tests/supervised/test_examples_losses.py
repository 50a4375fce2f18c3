"""Drawn examples under any loss, in groups of any size."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.training import algorithms, samplers
from causal_sgd.types import Batch

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(3)
BIT = worlds.two_bit(invariant_flip=0.1, spurious_flips=np.array([0.2, 0.4]))
CLOSE = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


def measured(measurement: Any, model: Any, params: Any, factory: Any = BIT) -> tuple[Any, ...]:
    """Data, the gradient and the loss of a batch of 3 and 5 examples, in one program."""

    @jax.jit
    def all_of(key: jax.Array) -> tuple[Any, ...]:
        world = factory(key)
        data = measurement.init(key, world)
        batch = Batch(jnp.arange(2), jnp.array([3, 5], jnp.int32))
        step = jnp.zeros((), jnp.int32)
        result = measurement.gradient(key, step, data, model, params, world, batch)
        variances = measurement.risks.variances(key, step, data, model, world, batch)(params)
        return data, *result, variances

    return all_of(KEY)


@pytest.mark.parametrize("loss", [losses.logistic, losses.exponential])
def test_losses_of_rows_are_those_of_a_plain_loop(loss: losses.Loss) -> None:
    model, params = (
        models.linear(dim=2, intercept=True),
        {
            "weights": jnp.array([0.7, -0.4]),
            "intercept": jnp.asarray(0.2),
        },
    )
    measurement = measurements.examples((9, 4), loss=loss, full=True)
    data, slope, value, variances = measured(measurement, model, params)
    assert data.training is None
    np.testing.assert_array_equal(data.rows.counts, [9, 4])
    expected, slopes, spreads = 0.0, np.zeros(3), []
    for e, (size, share) in enumerate(((9, 3 / 8), (4, 5 / 8))):
        x = np.column_stack([np.asarray(data.rows.inputs[e, :size], float), np.ones(size)])
        y = np.asarray(data.rows.labels[e, :size], float)
        margin = y * (x @ [0.7, -0.4, 0.2])
        each = np.log1p(np.exp(-margin)) if loss == losses.logistic else np.exp(-margin)
        factor = 1 / (1 + np.exp(margin)) if loss == losses.logistic else np.exp(-margin)
        gradients = -(factor * y)[:, None] * x
        expected += share * each.mean()
        slopes += share * gradients.mean(0)
        spreads.append(gradients.var(0))
    CLOSE(value, expected)
    CLOSE(np.append(slope["weights"], slope["intercept"]), slopes)
    CLOSE(np.column_stack([variances["weights"], variances["intercept"]]), spreads)


def test_softmax_of_two_classes_is_logistic() -> None:
    """Of labels 0 and 1 and the difference of the logits."""
    rows = np.random.default_rng(0).normal(size=(20, 2))
    signs = np.where(rows @ [1.0, 0.5] > 0.3, 1.0, -1.0)
    groups = np.arange(20) % 2
    binary = worlds.from_arrays(rows, signs, groups)
    classes = worlds.from_arrays(rows, (signs + 1) / 2, groups)
    weights, shift = jnp.array([[0.3, 1.0], [-0.5, 0.25]]), jnp.array([0.1, -0.2])
    one = models.linear(dim=2, intercept=True)
    two = models.linear(dim=2, intercept=True, outputs=2)
    pair = {"weights": weights, "intercept": shift}
    contrast = {"weights": weights[:, 1] - weights[:, 0], "intercept": shift[1] - shift[0]}
    CLOSE(two.estimate(pair), contrast["weights"])
    softmax = measurements.examples(loss=losses.softmax, full=True)
    logistic = measurements.examples(loss=losses.logistic, full=True)
    _, slope, value, _ = measured(softmax, two, pair, classes)
    _, expected, other, _ = measured(logistic, one, contrast, binary)
    CLOSE(value, other)
    CLOSE(slope["weights"][:, 1], expected["weights"])
    CLOSE(slope["weights"][:, 0], -expected["weights"])
    CLOSE(slope["intercept"], [-expected["intercept"], expected["intercept"]])
    with pytest.raises(ValueError, match="model must have a prediction of each class"):
        measured(softmax, one, contrast, classes)


def test_groups_are_balanced_and_subsampled() -> None:
    """RWG is the sampler `stratified`, SUBG keeps as many rows of every group as the smallest."""
    groups = worlds.balancing(dim_noise=3, num_examples=40)
    data = {
        name: jax.jit(lambda key, m=measurement: m.init(key, groups(key)))(KEY)
        for name, measurement in {
            "all": measurements.examples(loss=losses.logistic),
            "subsampled": measurements.examples(loss=losses.logistic, subsampled=True),
        }.items()
    }
    np.testing.assert_array_equal(data["all"].rows.counts, [16, 16, 4, 4])
    np.testing.assert_array_equal(data["subsampled"].rows.counts, [4, 4, 4, 4])
    for e in range(4):
        whole = np.asarray(data["all"].rows.inputs[e])[: int(data["all"].rows.counts[e])]
        kept = np.asarray(data["subsampled"].rows.inputs[e])[:4]
        places = [int(np.flatnonzero((whole == row).all(1))[0]) for row in kept]
        assert sorted(set(places)) == places
        assert e < 2 or places == [0, 1, 2, 3]
    first = np.asarray(data["subsampled"].rows.inputs[0])[:4]
    assert not np.array_equal(first, np.asarray(data["all"].rows.inputs[0])[:4])


@pytest.mark.slow
def test_training_by_logistic_rows_is_judged_on_rows() -> None:
    method = algorithms.sgd(
        world=worlds.zin_logit(),
        sampler=samplers.stratified(batch_size=64),
        measurement=measurements.examples(200, loss=losses.logistic, num_validation=4000),
        model=models.linear(dim=10),
        optimizer=optax.adam(0.05),
    )
    watched = [metrics.training_error, metrics.validation_error, metrics.training_risk]

    @jax.jit
    def last(key: jax.Array) -> Any:
        step = functools.partial(method.step, key)
        state = jax.lax.fori_loop(0, 200, lambda _, before: step(before), method.init(key))
        snapshot = method.snapshot(key, state)
        world = snapshot.world
        rates = world.error_rates(snapshot.estimate, jnp.zeros(()))
        return [metric(snapshot) for metric in watched], jnp.mean(rates)

    (training_error, validation_error, risk), rate = last(KEY)
    # Binomial standard errors of 8000 examples; the rate is exact.
    error = np.sqrt(rate * (1 - rate) / 8000)
    assert abs(validation_error - rate) < 4 * error
    assert 0 < training_error < 0.1
    assert 0 < risk < 0.25


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_examples": (3, 0)}, "num_examples"),
        ({"num_examples": 3, "loss": "logistic"}, "loss must be"),
        ({"fresh": 3, "subsampled": True}, "fresh must be None with subsampled"),
        ({"num_examples": 3, "loss": losses.logistic, "num_validation": 0}, "num_validation"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measurements.examples(**options)


def test_sizes_are_one_of_each_environment() -> None:
    with pytest.raises(ValueError, match="one of each of the 2 environments, got 3"):
        measurements.examples((3, 4, 5)).init(KEY, BIT(KEY))
