"""Diagnoses of networks behind gates and of plain ones, of pure functions, flax and equinox."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.experiment import diagnosis
from causal_sgd.supervised import losses, measurements, models, worlds
from causal_sgd.training import samplers
from support.diagnosed import snapshot_of

pytestmark = pytest.mark.usefixtures("quickly_compiled")

TURNS: Any = samplers.cyclic(batch_size=4)
BRIEF: Any = {"num_steps": 40, "burn_in": 10, "num_blocks": 10}
rng = np.random.default_rng(0)


def hidden(params: Any, x: jax.Array) -> jax.Array:
    """Two inputs, three units of tanh."""
    return jnp.tanh(x @ params["first"]) @ params["last"]


WEIGHTS: dict[str, Any] = {
    "first": jnp.array([[0.5, -0.7, 0.2], [0.3, 0.4, -0.8]]),
    "last": jnp.array([0.6, -0.9, 0.5]),
}
PLAIN = models.network(lambda key: WEIGHTS, hidden)
GATED = models.input_gates(PLAIN, groups=["kept", "spurious"], start=0.6)
NETWORK = {"gates": jnp.array([0.4, 0.6]), "network": WEIGHTS}
GATE = {"gates": np.array([False, True]), "network": False}
X, OWNERS = rng.normal(size=(60, 2)), np.repeat(["a", "b"], [40, 20])
Y = X[:, 0] + np.where(OWNERS == "a", 1.0, -1.0) * X[:, 1]
ROWS = worlds.from_arrays(X, Y, OWNERS)
FULL = measurements.examples(full=True)
BATCHES: dict[str, Any] = {"sampler": TURNS, "world": ROWS, "model": GATED, "measurement": FULL}


@functools.cache
def drives_of_the_gate() -> np.ndarray:
    """The bias of the second gate in each environment, in double precision."""
    first, last = (np.asarray(WEIGHTS[name], float) for name in ("first", "last"))
    inner = np.tanh(0.4**2 * X[:, :1] * first[0])
    # d^2/dg^2 of (f - y)^2 / 4 at g = 0 is (f - y) times the slope in g^2.
    slope = ((1 - inner**2) @ (first[1] * last)) * X[:, 1]
    curvature = (inner @ last - Y) * slope
    return np.array([-curvature[name == OWNERS].mean() for name in "ab"])


SECOND = {"first": np.array([[False], [True]]), "last": False}  # weights of the second input


@functools.cache
def looks() -> tuple[Any, Any, Any]:
    """Exponents and disturbances of the gate, and disturbances without gates; one program."""

    @jax.jit
    def look() -> tuple[Any, Any, Any]:
        snapshot = snapshot_of(NETWORK, ROWS, FULL, GATED)
        gate: Any = {"sampler": TURNS, "subspace": GATE}
        found = diagnosis.exponents(snapshot, learning_rate=0.5, **gate, **BRIEF)
        plain = snapshot_of(WEIGHTS, ROWS, FULL, PLAIN)
        disturbed = diagnosis.disturbances(plain, sampler=TURNS, subspace=SECOND)
        return found, diagnosis.disturbances(snapshot, **gate), disturbed

    return look()


def test_a_gate_of_a_network_is_a_multiplicative_weight() -> None:
    (exponents, errors), disturbed, _ = looks()
    expected = np.log(np.abs(1 + 0.5 * drives_of_the_gate())).mean()
    assert float(exponents[0, 0]) == pytest.approx(expected, abs=1e-5)
    assert float(errors[0, 0]) == pytest.approx(0, abs=1e-6)  # two turns in every block
    np.testing.assert_allclose(disturbed.stiffness, np.abs(drives_of_the_gate()), rtol=1e-4)
    assert not disturbed.defect.any()
    assert not disturbed.coupling.any()
    assert (disturbed.slope > 0).all()


def test_weights_of_a_plain_network_have_a_gradient_in_every_environment() -> None:
    first, last = (np.asarray(WEIGHTS[name], float) for name in ("first", "last"))
    inner = np.tanh(X[:, :1] * first[0])
    each = ((inner @ last - Y) / 2 * X[:, 1])[:, None] * (1 - inner**2) * last
    defects = [np.linalg.norm(each[name == OWNERS].mean(0)) for name in "ab"]
    np.testing.assert_allclose(looks()[2].defect, defects, rtol=1e-4)


def test_curvatures_within_a_part_and_across_its_border_are_those_of_hessians() -> None:
    inside = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0], bool)  # "first" [2, 3], then "last" [3]

    def loss(vector: jax.Array, own: jax.Array) -> jax.Array:
        params = {"first": vector[:6].reshape(2, 3), "last": vector[6:]}
        values = jax.vmap(lambda x: hidden(params, x))(X)
        return jnp.sum(own * (values - Y) ** 2 / 4) / jnp.sum(own)

    point = jnp.concatenate([WEIGHTS["first"].ravel(), WEIGHTS["last"]]) * ~inside
    owners = jnp.array([name == OWNERS for name in "ab"], float)
    hessians = np.asarray(jax.jit(jax.vmap(jax.hessian(loss), (None, 0)))(point, owners))
    stiffness = np.linalg.norm(hessians[:, inside][:, :, inside], axis=(1, 2))
    np.testing.assert_allclose(looks()[2].stiffness, stiffness, rtol=1e-4)
    coupling = np.linalg.norm(hessians[:, inside][:, :, ~inside], axis=(1, 2))
    # The mean square of four products: of one direction alone its relative deviation is 0.7.
    shares = np.asarray(looks()[2].coupling) / coupling
    assert (shares > 1 / 3).all()
    assert (shares < 2).all()


@pytest.mark.slow
def test_the_parts_of_a_diagnosis_are_its_own_numbers() -> None:
    options: Any = {"sampler": TURNS, "subspace": GATE}
    snapshot = snapshot_of(NETWORK, ROWS, FULL, GATED)
    found = diagnosis.diagnose(NETWORK, **BATCHES, subspace=GATE, learning_rate=[0.5], **BRIEF)
    np.testing.assert_allclose(found.numbers.drive[0, :, 0], drives_of_the_gate(), rtol=1e-4)
    assert found.environments == ("a", "b")
    parts = diagnosis.exponents(snapshot, learning_rate=[0.5], **options, **BRIEF)
    for mine, whole in zip(
        parts, (found.numbers.exponents, found.numbers.standard_error), strict=True
    ):
        np.testing.assert_allclose(mine, whole, atol=1e-6)
    disturbed = diagnosis.disturbances(snapshot, **options)
    for name in ("defect", "coupling", "stiffness"):
        whole = getattr(found.numbers, name)[0]
        np.testing.assert_allclose(getattr(disturbed, name), whole, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(disturbed.slope, found.numbers.slope, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("measurement", [FULL, measurements.examples()], ids=["full", "batches"])
def test_weights_of_a_plain_network_are_not_invariant(measurement: Any) -> None:
    parts = {**BATCHES, "model": PLAIN, "measurement": measurement}
    found = diagnosis.diagnose(WEIGHTS, **parts, subspace="first", learning_rate=0.3, **BRIEF)
    assert found.verdict == "not invariant: cannot be rejected this way"
    assert "no common fixed point" in found.reasons[0]


def equinox_network() -> Any:
    eqx = pytest.importorskip("equinox")
    return models.from_equinox(lambda key: eqx.nn.MLP(2, "scalar", 3, 1, jnp.tanh, key=key))


def linen_network() -> Any:
    linen = pytest.importorskip("flax.linen")
    return models.from_flax(
        linen.Sequential([linen.Dense(3), jnp.tanh, linen.Dense(1)]), np.zeros(2)
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [equinox_network, linen_network])
def test_modules_behind_gates_are_diagnosed(make: Any) -> None:
    """Of both gates at once, whose exponents are those of each where the Hessian is diagonal."""
    network = make()
    model = models.input_gates(network, groups=2)
    params = model.init(jax.random.key(1))
    parts = {**BATCHES, "model": model, "learning_rate": [0.4], "num_steps": 40, "burn_in": 400}
    found = diagnosis.diagnose(params, **parts, subspace="gates")
    assert not found.numbers.defect.any()
    assert not found.numbers.coupling.any()

    def loss(gates: jax.Array, own: np.ndarray) -> jax.Array:
        predict = network.predict
        values = jax.vmap(lambda x: predict(params["network"], x * gates**2))(X[own])
        return jnp.mean(losses.squared(values, jnp.asarray(Y[own])))

    closed = jnp.zeros(2)
    curvatures = [jnp.diag(jax.hessian(loss)(closed, name == OWNERS)) for name in "ab"]
    expected = np.log(np.abs(1 - 0.4 * np.array(curvatures))).mean(0)
    np.testing.assert_allclose(np.sort(found.numbers.exponents[0]), np.sort(expected), atol=2e-5)
    # The network behind is none that environments leave alone.
    behind = diagnosis.diagnose(params, **parts, subspace="network", value=None)
    assert behind.verdict.startswith("not invariant")
    assert "no common fixed point" in behind.reasons[0]
