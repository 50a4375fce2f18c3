"""Gates before a model, and the optimizer that gives them a step and a cap of their own."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import causal_sgd as cs
from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.training import algorithms, optimizers, samplers
from support.networks import apply_mlp, init_mlp, mlp_by_hand

pytestmark = pytest.mark.usefixtures("quickly_compiled")
CLOSE = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
KEY = jax.random.key(0)
MLP = models.network(init_mlp, apply_mlp)
GROUPS = ["pixel", "pixel", None, "colour"]
ROWS = np.random.default_rng(4).normal(size=(7, 4))


def sgd(world: Any, model: Any, optimizer: Any, loss: losses.Loss) -> Any:
    """Descent on all rows of both environments."""
    return algorithms.sgd(
        world=world,
        sampler=samplers.pooled(batch_size=7),
        measurement=measurements.examples(loss=loss, full=True),
        model=model,
        optimizer=optimizer,
    )


def test_inputs_are_multiplied_by_the_squares_of_the_gates_of_their_groups() -> None:
    """For a linear model the weights are, for which every linear prediction is the same."""
    linear = models.input_gates(models.linear(dim=4, intercept=True), groups=GROUPS)
    assert linear.groups == ("pixel", "colour")
    assert linear.members == (0, 0, -1, 1)
    weights, gates = np.array([0.5, -1.0, 2.0, 3.0]), np.array([0.7, -0.2])
    params = {
        "gates": jnp.asarray(gates),
        "network": {"weights": jnp.asarray(weights), "intercept": jnp.asarray(0.3)},
    }
    factors = np.array([0.49, 0.49, 1.0, 0.04])
    CLOSE(linear.gates(params), factors)
    CLOSE(linear.estimate(params), factors * weights)
    CLOSE(linear.predictions(params, jnp.asarray(ROWS)), (ROWS * factors) @ weights + 0.3)
    assert linear.has_weights
    head = jnp.array([1.0, 2.0, 3.0, 4.0])
    CLOSE(linear.estimate(linear.rescaled(params, head)), factors * weights * np.asarray(head))
    CLOSE(linear.features(params), np.diag(factors))


def test_a_network_sees_the_gated_inputs() -> None:
    model = models.input_gates(MLP, groups=2, start=np.array([0.5, 2.0]))
    params, behind = jax.jit(lambda key: (model.init(key), init_mlp(key)))(KEY)
    CLOSE(params["gates"], [0.5, 2.0])
    assert jax.tree.all(jax.tree.map(np.array_equal, params["network"], behind))
    expected = mlp_by_hand(behind, ROWS[:, :2] * np.array([0.25, 4.0]))
    CLOSE(model.predictions(params, jnp.asarray(ROWS[:, :2])), expected)
    assert not model.has_weights


def test_a_closed_gate_has_no_gradient_in_any_environment() -> None:
    """The common fixed point; without the gate the first layer has a gradient in each of them."""
    signs = np.sign(ROWS[:, 0] + ROWS[:, 1])
    factory = worlds.from_arrays(ROWS[:, :2], signs, [0, 0, 0, 0, 1, 1, 1])
    measurement = measurements.examples(loss=losses.logistic)
    gated = models.input_gates(MLP, groups=["signal", "colour"])

    def slopes_of(model: Any, params: Any) -> Any:
        @jax.jit
        def slopes(params: Any) -> Any:
            world = factory(KEY)
            data = measurement.init(KEY, world)
            assert measurement.risks is not None
            return jax.jacrev(measurement.risks.whole(data, model, world))(params)

        return slopes(params)

    plain = init_mlp(KEY)
    slopes = slopes_of(gated, {"gates": jnp.array([0.7, 0.0]), "network": plain})
    np.testing.assert_array_equal(slopes["gates"][:, 1], 0)
    np.testing.assert_array_equal(slopes["network"]["hidden"]["kernel"][:, 1], 0)
    assert (np.abs(slopes["gates"][:, 0]) > 1e-3).all()
    plain["hidden"]["kernel"] = plain["hidden"]["kernel"] * jnp.array([[1.0], [0.0]])
    slopes = slopes_of(MLP, plain)
    assert (np.abs(slopes["hidden"]["kernel"][:, 1]).max(1) > 1e-3).all()


def test_a_step_near_zero_multiplies_a_gate_as_documented() -> None:
    """By 1 - 2 learning_rate dR_e/d(g^2)."""
    with jax.enable_x64(True):
        world = worlds.from_arrays(ROWS[:, :2], ROWS[:, 2], np.zeros(7))
        model = models.input_gates(MLP, groups=2)
        step = sgd(world, model, optax.sgd(0.5), losses.squared)
        behind = init_mlp(KEY)
        params = {"gates": jnp.array([0.7, 1e-4]), "network": behind}

        @jax.jit
        def moved(params: Any) -> Any:
            state = step.init(KEY)._replace(params=params)
            return step.step(KEY, state).params["gates"][1] / params["gates"][1]

        factor = moved(jax.tree.map(lambda leaf: leaf.astype(float), params))

    def loss(square: float) -> float:
        predictions = mlp_by_hand(behind, ROWS[:, :2] * np.array([0.49, square]))
        return float(np.mean((predictions - ROWS[:, 2]) ** 2) / 4)

    derivative = (loss(2e-8) - loss(0)) / 2e-8
    np.testing.assert_allclose(np.asarray(factor) - 1, -2 * 0.5 * derivative, rtol=1e-5)


def test_metrics_of_gated_models() -> None:
    """Weights exist behind gates where the model has them; gates are the factors of inputs."""
    world = worlds.from_arrays(ROWS[:, :2], ROWS[:, 2], [0, 0, 0, 0, 1, 1, 1], target=[1.0, 0.0])

    def run(model: Any, *watched: Any) -> Any:
        optimizer = optimizers.gates(optax.sgd(0.1), learning_rate=0.5, cap=0.9)
        method = sgd(world, model, optimizer, losses.squared)
        return lambda key: cs.run(key, algorithm=method, metrics=watched, num_steps=2).metrics

    linear = models.input_gates(models.linear(dim=2, init_scale=1.0), groups=["a", "a"], start=0.5)
    found = jax.jit(run(linear, metrics.estimation_error, metrics.gates))(KEY)
    assert np.isfinite(found["estimation_error"]).all()
    assert found["gates"].shape == (2, 2)
    CLOSE(found["gates"][0], 0.25)
    cases = (
        (models.input_gates(MLP, groups=2), "metric weights must see a model with weights"),
        (models.input_gates(MLP, groups=3), "groups must have a label for each of the 2 inputs"),
        (
            models.input_gates(models.linear(dim=3), groups=2),
            "network must have the 2 inputs of the world, got one of 3",
        ),
    )
    for model, message in cases:
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(run(model, metrics.weights), KEY)


W, V = (np.random.default_rng(5).normal(size=size) for size in ((4, 3), (4,)))
NETWORKS: dict[str, tuple[bool, Any]] = {  # whether a matrix takes the factors, and what is applied
    "rows": (True, lambda p, x: jnp.tanh(x @ p["w"]) @ p["last"]),
    "columns": (True, lambda p, x: jnp.tanh(p["w"].T @ x) @ p["last"]),
    "two matrices": (True, lambda p, x: jnp.tanh(x @ p["w"]) @ p["last"] + V.astype(x.dtype) @ x),
    "jitted": (False, jax.jit(lambda p, x: jnp.tanh(x @ p["w"]) @ p["last"])),
    "a layer beside": (False, lambda p, x: jnp.tanh(x @ p["w"]) @ p["last"] + x[0]),
    "a shape": (False, lambda p, x: jnp.tanh(x.reshape(2, 2) @ p["w"][:2]).sum(0) @ p["last"]),
    "with itself": (False, lambda p, x: x @ x * p["last"][0]),
    "nothing": (False, lambda p, x: p["last"][0]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_factors_in_the_first_matrices_change_nothing(name: str) -> None:
    """The prediction and all derivatives are those of x * g^2, with one product less."""
    folded, apply = NETWORKS[name]
    with jax.enable_x64(True):
        network = models.network(
            lambda key: {"w": jnp.asarray(W), "last": jnp.asarray(V[:3])}, apply
        )
        model = models.input_gates(network, groups=["a", "b", None, "a"], start=[0.6, 0.8])
        params, rows = model.init(KEY), jnp.asarray(ROWS)

        def multiplied(params: Any, rows: jax.Array) -> jax.Array:
            return jax.vmap(lambda x: apply(params["network"], x * model.gates(params)))(rows)

        functions = model.predictions, multiplied
        found, expected = jax.jit(
            lambda p: [(each(p, rows), jax.jacrev(each)(p, rows)) for each in functions]
        )(params)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), found, expected)
        products = [
            str(jax.make_jaxpr(jax.grad(lambda p, f=f: f(p, rows).sum()))(params)).count(
                "[7,4] = dot"
            )
            for f in functions
        ]
    assert (products[0] < products[1]) is folded, products


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": MLP.predict}, "network must be a model, such as models.network"),
        ({"groups": 0}, "groups must be a whole number, at least 1 .* got 0"),
        ({"groups": "ab"}, "groups must be a whole number p, or a label"),
        ({"groups": [None, None]}, "groups must name at least one gate, got 2 inputs without"),
        ({"groups": [[1], [2]]}, "groups must be .* got list"),
        ({"start": 0}, "start must be a finite number above 0, got 0"),
        ({"start": np.ones(3)}, r"start must be one number, or one of each of the 2 gates"),
    ],
)
def test_gates_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.input_gates(**{"network": MLP, "groups": 2} | arguments)


# The optimizer

PARAMS = {
    "gates": jnp.array([0.5, -0.01, 0.0]),
    "network": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array(0.3)},
}
SLOPES = {
    "gates": jnp.array([0.1, 3.0, 0.0]),
    "network": {"kernel": jnp.array([[0.2, 0.1]]), "bias": jnp.array(-1.0)},
}


def after(optimizer: optax.GradientTransformation, steps: int = 1, **extra: Any) -> Any:
    """The parameters after some steps with the same gradient."""
    params, state = PARAMS, optimizer.init(PARAMS)
    update = optax.with_extra_args_support(optimizer).update
    for _ in range(steps):
        updates, state = update(SLOPES, state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params


def test_a_capped_step_is_the_formula() -> None:
    """g <- g (1 + clip(-eta grad / g, -cap, cap)), where g is not 0; a closed gate stays closed."""
    for rate, cap in ((0.2, 0.9), (4.0, 0.9), (4.0, 0.1)):
        found = after(optimizers.gates(optax.sgd(0.1), learning_rate=rate, cap=cap))["gates"]
        gates, slopes = (np.asarray(tree["gates"], float)[:2] for tree in (PARAMS, SLOPES))
        CLOSE(found[:2], gates * (1 + np.clip(-rate * slopes / gates, -cap, cap)))
        assert found[2] == 0


def test_gates_have_a_step_of_their_own_and_the_rest_its_optimizer() -> None:
    for rest in (optax.sgd(0.1, momentum=0.9), optax.adam(0.01)):
        found = after(optimizers.gates(rest, learning_rate=0.5), steps=3)
        alone = after(rest, steps=3)["network"]
        assert jax.tree.all(jax.tree.map(np.array_equal, found["network"], alone))
        CLOSE(found["gates"], np.asarray(PARAMS["gates"]) - 3 * 0.5 * np.asarray(SLOPES["gates"]))


def test_a_step_of_gates_may_be_a_schedule() -> None:
    schedule = optax.piecewise_constant_schedule(0.5, {2: 0.0})
    found = after(optimizers.gates(optax.sgd(0.1), learning_rate=schedule), steps=3)
    CLOSE(found["gates"], np.asarray(PARAMS["gates"]) - 2 * 0.5 * np.asarray(SLOPES["gates"]))


def test_any_part_of_the_parameters_may_be_gates() -> None:
    """`where` names them; parts of the tree stand for all of their arrays."""
    flags = {"gates": False, "network": {"kernel": False, "bias": True}}
    found = after(
        optimizers.gates(optax.sgd(0.0), learning_rate=0.5, cap=0.1, where=lambda params: flags)
    )
    CLOSE(found["network"]["bias"], 0.33)
    np.testing.assert_array_equal(found["gates"], PARAMS["gates"])
    np.testing.assert_array_equal(found["network"]["kernel"], PARAMS["network"]["kernel"])


@pytest.mark.slow
def test_optimizers_that_look_elsewhere_see_the_other_parameters() -> None:
    """Sharpness-aware steps ask for gradients, and L-BFGS for losses, of the other parameters."""

    def loss(params: Any) -> jax.Array:
        kernel, bias = params["network"]["kernel"], params["network"]["bias"]
        return jnp.sum(kernel**4) * params["gates"][0] + bias**2

    extra = {
        "value": loss(PARAMS),
        "grad": jax.grad(loss)(PARAMS),
        "value_fn": lambda params, *, grad_fn=None: loss(params),  # as algorithms pass it
        "grad_fn": lambda params, index: jax.grad(loss)(params),
    }

    def step(optimizer: Any) -> Any:
        @jax.jit
        def stepped(params: Any) -> Any:
            state, slope = optimizer.init(params), jax.grad(loss)(params)
            updates, _ = optimizer.update(slope, state, params, **extra)
            return optax.apply_updates(params, updates)

        return stepped(PARAMS)

    radius, slope = 0.2, jax.tree.map(np.asarray, jax.grad(loss)(PARAMS)["network"])
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(slope)))
    kernel = np.asarray(PARAMS["network"]["kernel"]) + radius * slope["kernel"] / norm
    aware = optimizers.gates(optimizers.sam(optax.sgd(0.1), radius=radius), learning_rate=0.0)
    expected = np.asarray(PARAMS["network"]["kernel"]) - 0.1 * 0.5 * 4 * kernel**3
    CLOSE(step(aware)["network"]["kernel"], expected)
    searched = step(optimizers.gates(optax.lbfgs(), learning_rate=0.0))
    assert loss(searched) < 0.5 * loss(PARAMS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": optax.sgd}, "optimizer must be an optax transformation"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number at least 0"),
        ({"cap": 0}, "cap must be a finite number above 0"),
        ({"cap": 1.0}, "cap must be below 1"),
        ({"where": 1}, "where must be None or a function"),
    ],
)
def test_an_optimizer_of_gates_that_makes_no_sense_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        optimizers.gates(**{"optimizer": optax.sgd(0.1), "learning_rate": 0.1} | arguments)


@pytest.mark.parametrize(
    ("where", "params", "message"),
    [
        (None, jnp.ones(2), "params must have gates for an optimizer of gates"),
        (None, {"weights": jnp.ones(2)}, "params must have gates"),
        (
            lambda params: {"weights": 1},
            {"weights": jnp.ones(2)},
            "where must return True or False",
        ),
        (lambda params: {"w": True}, {"weights": jnp.ones(2)}, "where must return a tree of the"),
        (lambda params: False, {"weights": jnp.ones(2)}, "where must choose at least one array"),
    ],
)
def test_parameters_without_gates_are_refused(where: Any, params: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizers.gates(optax.sgd(0.1), learning_rate=0.1, where=where).init(params)
