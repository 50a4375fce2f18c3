"""Networks from two pure functions: losses, objectives, seeds and refusals, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import causal_sgd as cs
from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.training import algorithms, objectives, samplers
from causal_sgd.types import Batch
from support.networks import apply_mlp, init_mlp, mlp_by_hand

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
MLP = models.network(init_mlp, apply_mlp)
ROWS = np.random.default_rng(2).normal(size=(11, 2))
SIGNS = np.where(ROWS.sum(1) + 0.3 * ROWS[:, 0] ** 2 > 0.2, 1.0, -1.0)
OWNERS = np.array([0] * 6 + [1] * 5)
DATA = worlds.from_arrays(ROWS, SIGNS, OWNERS)
COUNTS = np.array([3, 5])  # of a batch that uses all rows, which they weigh
Risks = Callable[[float], np.ndarray]


def losses_by_hand(params: Any, scale: float = 1.0) -> np.ndarray:
    """The mean logistic loss of both environments, in NumPy."""
    margins = SIGNS * scale * mlp_by_hand(params, ROWS)
    return np.array([np.log1p(np.exp(-margins[e == OWNERS])).mean() for e in range(2)])


def irmv1_by_hand(params: Any) -> float:
    step = 1e-5
    slopes = (losses_by_hand(params, 1 + step) - losses_by_hand(params, 1 - step)) / (2 * step)
    return float(COUNTS @ (losses_by_hand(params) + 10.0 * slopes**2) / COUNTS.sum())


def vrex_by_hand(params: Any) -> float:
    values, shares = losses_by_hand(params), COUNTS / COUNTS.sum()
    return float(shares @ values + 10.0 * shares @ (values - shares @ values) ** 2)


def group_dro_by_hand(params: Any, weights: np.ndarray) -> float:
    return float(weights @ losses_by_hand(params))


def raised(params: Any, rate: float) -> np.ndarray:
    """The weights of GroupDRO after its first step."""
    weights = np.exp(rate * losses_by_hand(params))
    return weights / weights.sum()


def state_after(key: jax.Array, objective: Any, params: Any) -> tuple[Any, Any]:
    """Parameters before and after one step of descent with a step of one, and the value."""
    model = models.network(lambda _: params, apply_mlp)
    method = algorithms.penalised(
        world=DATA,
        sampler=samplers.Sampler(
            lambda key, probabilities: (),
            lambda key, step, state: (Batch(jnp.arange(2), jnp.array(COUNTS)), state),
            batch_size=8,
        ),
        measurement=measurements.examples(loss=losses.logistic, full=True),
        model=model,
        objective=objective,
        optimizer=optax.sgd(1.0),
    )
    state = method.step(key, method.init(key))
    return state.params, state.loss


@pytest.mark.parametrize("name", ["irmv1", "vrex", "group_dro"])
def test_objectives_of_a_network_descend_what_a_plain_loop_computes(name: str) -> None:
    """The gradient along random directions is the difference quotient of the value in NumPy."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), init_mlp(KEY))
        objective = {
            "irmv1": objectives.irmv1(weight=10.0),
            "vrex": objectives.vrex(weight=10.0),
            "group_dro": objectives.group_dro(rate=0.7),
        }[name]
        new, value = jax.jit(lambda key: state_after(key, objective, params))(KEY)
    weights = raised(params, 0.7)
    by_hand = {
        "irmv1": irmv1_by_hand,
        "vrex": vrex_by_hand,
        "group_dro": lambda params: group_dro_by_hand(params, weights),
    }[name]
    np.testing.assert_allclose(value, by_hand(params), rtol=1e-8)
    slope = jax.tree.map(lambda old, new: np.asarray(old) - np.asarray(new), params, new)
    rng = np.random.default_rng(1)
    for _ in range(4):
        along = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), slope)
        ahead, back = (
            by_hand(jax.tree.map(lambda p, d, size=size: np.asarray(p) + size * d, params, along))
            for size in (1e-4, -1e-4)
        )
        quotient = (ahead - back) / 2e-4
        pairs = zip(jax.tree.leaves(slope), jax.tree.leaves(along), strict=True)
        product = sum(np.sum(one * other) for one, other in pairs)
        np.testing.assert_allclose(product, quotient, rtol=1e-5)


def cell(key: jax.Array, *, learning_rate: Any) -> Any:
    method = algorithms.sgd(
        world=DATA,
        sampler=samplers.hetero(batch_size=4),
        measurement=measurements.examples(loss=losses.logistic),
        model=MLP,
        optimizer=optax.adam(learning_rate),
    )
    watched = [metrics.training_risk, metrics.training_error, metrics.invariance_gap]
    return cs.run(key, algorithm=method, metrics=watched, num_steps=60)


@pytest.mark.slow
def test_seeds_of_a_network_are_lanes_of_one_program() -> None:
    runs = cs.sweep(cell, axes={"learning_rate": [0.01, 0.1]}, seeds=3, progress=False)
    assert runs.training_risk.shape == (2, 3, 2)
    first = runs.training_risk.isel(step=0)
    np.testing.assert_array_equal(first[0], first[1])  # one start for all points of a seed
    assert len(np.unique(first[0])) == 3
    assert (runs.training_risk.isel(step=-1)[1] < 0.7 * first[1]).all()
    assert (runs.diverged_at == -1).all()
    key = jax.random.fold_in(jax.random.key(0), 1)
    params = init_mlp(algorithms.stream(key, "initialisation"))
    np.testing.assert_allclose(first[0, 1], losses_by_hand(params) @ [6, 5] / 11, rtol=1e-5)


def watched(metric: Any, measurement: Any = None, model: Any = MLP, world: Any = DATA) -> Any:
    """What a metric says of a run of one step; only shapes are computed."""
    method = algorithms.sgd(
        world=world,
        sampler=samplers.hetero(batch_size=4),
        measurement=measurement or measurements.examples(loss=losses.logistic),
        model=model,
        optimizer=optax.sgd(0.1),
    )
    return jax.eval_shape(
        lambda key: cs.run(key, algorithm=method, metrics=[metric], num_steps=1), KEY
    )


@pytest.mark.parametrize(
    "name",
    [
        "causal_error",
        "estimation_error",
        "failed",
        "l1_norm",
        "noncausal_error",
        "spurious_weight",
        "support_error",
        "weights",
    ],
)
def test_metrics_of_weights_refuse_a_network(name: str) -> None:
    with pytest.raises(ValueError, match=f"metric {name} must see a model with weights.* network"):
        watched(getattr(metrics, name))


def test_what_needs_a_linear_prediction_refuses_a_network() -> None:
    with pytest.raises(ValueError, match="model must predict linearly.*use measurements.examples"):
        watched(metrics.training_risk, measurements.moments())
    with pytest.raises(ValueError, match="model must predict linearly.*such as training_error"):
        watched(metrics.margin)
    with pytest.raises(ValueError, match="model must have weights of its inputs for an estimate"):
        watched(lambda snapshot: snapshot.estimate)
    irm = objectives.irm(weight=1.0)
    with pytest.raises(ValueError, match="model must have a head for the penalty of irm"):
        jax.eval_shape(lambda key: state_after(key, irm, init_mlp(key)), KEY)


def test_classes_have_outputs() -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jnp.stack([-apply_mlp(params, x), apply_mlp(params, x)]) / 2

    classes = worlds.from_arrays(ROWS, (SIGNS + 1) / 2, OWNERS)
    two = models.network(init_mlp, apply, outputs=2)
    assert two.outputs == 2
    method = algorithms.sgd(
        world=classes,
        sampler=samplers.pooled(batch_size=4),
        measurement=measurements.examples(loss=losses.softmax),
        model=two,
        optimizer=optax.sgd(0.1),
    )
    watched = [metrics.training_risk]
    trace = jax.jit(lambda key: cs.run(key, algorithm=method, metrics=watched, num_steps=1))(KEY)
    params = two.init(algorithms.stream(KEY, "initialisation"))
    # The cross-entropy of two classes is the logistic loss of the difference of their logits.
    expected = losses_by_hand(params) @ [6, 5] / 11
    np.testing.assert_allclose(trace.metrics["training_risk"][0], expected, rtol=1e-5)


def returning(value: Any) -> models.NetworkModel:
    return models.network(init_mlp, lambda params, x: value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            returning((jnp.zeros(()), {})),
            "apply must return the prediction alone, got a tuple.*norm",
        ),
        (
            returning(jnp.zeros(10)),
            r"one number, \[\] or \[1\], got an array \[10\]; pass outputs=10",
        ),
        (returning("x"), "apply must return the prediction, an array, got a str"),
        (
            models.network(init_mlp, lambda params, x: jnp.zeros(3), outputs=2),
            r"must return for one input \[2\], as outputs says, got an array \[3\]",
        ),
        (
            models.network(init_mlp, lambda params, x: apply_mlp(params, x[:1])),
            r"model must take the inputs \[2\] of the world, got a network that fails",
        ),
        (models.network(lambda key: {}, apply_mlp), "init must return parameters, got no array"),
        (
            models.network(lambda key: {"count": jnp.zeros((), jnp.int32)}, apply_mlp),
            r"floating-point numbers alone.*, got int32 at \['count'\]",
        ),
        (models.network(lambda key: [0.5], apply_mlp), r"got float at \[0\]"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_when_a_run_begins(
    model: models.NetworkModel, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        watched(metrics.training_risk, model=model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, apply_mlp), "init must be a function key -> params, got None"),
        ((init_mlp, init_mlp), r"apply must be a function \(params, input \[p\]\) -> prediction"),
    ],
)
def test_what_is_no_network_is_refused_at_once(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.network(*arguments)
    with pytest.raises(ValueError, match="outputs must be a whole number, at least 2"):
        models.network(init_mlp, apply_mlp, outputs=1)


def test_one_number_may_have_an_axis() -> None:
    model = models.network(init_mlp, lambda params, x: apply_mlp(params, x)[None])
    params = init_mlp(KEY)
    found = model.predictions(params, jnp.asarray(ROWS, jnp.float32))
    np.testing.assert_allclose(found, mlp_by_hand(params, ROWS), rtol=1e-5, atol=1e-6)
