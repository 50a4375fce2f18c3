"""Reports on tables against plain least squares, and against training u^2 - v^2 in a plain loop."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from causal_sgd.experiment import diagnosis
from causal_sgd.supervised import worlds
from causal_sgd.theory.sparse import heterogeneity_lasso

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NAMES = ("useful", "<spurious>", "neighbour")


@functools.cache
def table() -> pd.DataFrame:
    """A useful feature, one whose weight changes its sign, and a neighbour of the useful one."""
    rng = np.random.default_rng(1)
    owners = np.repeat(["north", "south", "west"], [300, 300, 300])
    useful, spurious, own = rng.normal(size=(3, 900))
    neighbour = 0.6 * useful + 0.8 * own
    weight = np.select([owners == "north", owners == "south"], [1.0, -1.0], 0.3)
    label = useful + 0.3 * neighbour + weight * spurious + 0.5 * rng.normal(size=900)
    columns = dict(zip(NAMES, (3 + 2 * useful, spurious, neighbour), strict=True))
    return pd.DataFrame({**columns, "y": 10 * label + 5, "region": owners})


@functools.cache
def found(within: bool = False) -> diagnosis.Report:
    return diagnosis.report(worlds.from_arrays(table(), "y", "region"), within=within)


def standardised() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frame = table()
    x, y = frame[list(NAMES)].to_numpy(), frame["y"].to_numpy()
    return (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std(), frame["region"].to_numpy()


def test_drives_are_what_the_other_features_leave() -> None:
    x, y, owners = standardised()
    np.testing.assert_allclose(found().weights, np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-4)
    for j in range(3):
        others = np.delete(x, j, 1)
        rest = y - others @ np.linalg.lstsq(others, y, rcond=None)[0]
        for e, name in enumerate(("north", "south", "west")):
            own = owners == name
            product = x[own, j] * rest[own]
            scale = np.sqrt((x[own, j] ** 2).mean() * (rest[own] ** 2).mean())
            assert found().drives[e, j] == pytest.approx(product.mean(), abs=1e-4)
            assert found().correlations[e, j] == pytest.approx(product.mean() / scale, abs=1e-4)
            # That of the rows, of which two moments are taken as Gaussian.
            error = product.std() / own.sum() ** 0.5
            assert found().standard_errors[e, j] == pytest.approx(error, rel=0.35)


def test_dissent_is_a_share_of_environments() -> None:
    np.testing.assert_allclose(found().dissent, [0, 1 / 3, 0])
    np.testing.assert_allclose(found().clear_dissent, [0, 1 / 3, 0])
    assert found().verdicts[0] == "kept: no environment contradicts it"
    assert found().verdicts[1].startswith("rejected from a step of")
    assert np.isfinite(found().rejected_at[1])


def test_the_path_is_the_lasso_of_heterogeneity() -> None:
    x, y, owners = standardised()
    parts = [owners == name for name in ("north", "south", "west")]
    second = np.stack([x[own].T @ x[own] / own.sum() for own in parts])
    cross = np.stack([x[own].T @ y[own] / own.sum() for own in parts])
    rate = float(found().learning_rates[5])
    expected = heterogeneity_lasso(second, cross, learning_rate=rate, signed=True).estimate
    np.testing.assert_allclose(found().path[5], expected, atol=2e-4)
    # At small steps it is least squares.
    small = diagnosis.report(worlds.from_arrays(table(), "y", "region"), learning_rates=1e-4)
    np.testing.assert_allclose(small.path[0], small.weights, atol=1e-3)


def test_means_within_environments_can_be_left_out() -> None:
    frame = table().copy()
    shift = np.select([frame["region"] == "north", frame["region"] == "south"], [4.0, -1.0], 0.5)
    for name in (*NAMES, "y"):
        frame[name] = frame[name] + shift * (5 if name == "y" else 1)
    moved = diagnosis.report(worlds.from_arrays(frame, "y", "region"), within=True)
    np.testing.assert_allclose(moved.path, found(within=True).path, atol=1e-3)
    assert (
        abs(diagnosis.report(worlds.from_arrays(frame, "y", "region")).path - moved.path).max()
        > 0.01
    )


def trained(rate: float, steps: int = 4000) -> np.ndarray:
    """The mean weights of u^2 - v^2 under one environment a step, full gradients; NaN if none."""
    x, y, owners = standardised()
    parts = [(x[owners == name], y[owners == name]) for name in ("north", "south", "west")]
    moments = [(a.T @ a / len(a), a.T @ b / len(a)) for a, b in parts]
    u, v, total = np.full(3, 0.3), np.full(3, 0.3), np.zeros(3)
    order = np.random.default_rng(0).integers(3, size=steps)
    with np.errstate(all="ignore"):
        for step, place in enumerate(order):
            second, cross = moments[place]
            gradient = second @ (u**2 - v**2) - cross
            u, v = u * (1 - rate * gradient), v * (1 + rate * gradient)
            total += (u**2 - v**2) * (step >= steps // 4)
    return total / (steps - steps // 4)


def test_stable_steps_are_two_over_the_sharpness_of_squares() -> None:
    x, y, owners = standardised()

    @jax.jit
    def hessian(weights: jax.Array, own: jax.Array) -> jax.Array:
        def loss(roots: jax.Array) -> jax.Array:
            residuals = x @ (roots[:3] ** 2 - roots[3:] ** 2) - y
            return jnp.sum(own * residuals**2) / jnp.sum(own) / 4

        roots = jnp.sqrt(jnp.concatenate([jnp.maximum(weights, 0), jnp.maximum(-weights, 0)]))
        return jax.hessian(loss)(roots)

    parts = [owners == name for name in ("north", "south", "west")]
    weights = jnp.asarray(found().weights)
    steps = [
        2 / np.linalg.eigvalsh(hessian(weights, jnp.asarray(own, float)))[-1]
        for own in (*parts, np.ones(len(y), bool))
    ]
    np.testing.assert_allclose(found().stable_steps, [min(steps[:3]), steps[3]], rtol=1e-3)


def test_training_finds_the_path_and_diverges_beyond_stable_steps() -> None:
    rates = found().learning_rates
    small = int(np.searchsorted(rates, 0.2 * found().largest_stable_step))
    distance = np.abs(trained(float(rates[small])) - found().path[small]).sum()
    assert distance < 0.15 * np.abs(found().path[small] - found().weights).sum()
    assert not np.isfinite(trained(2 * found().largest_stable_step)).all()


def test_noise_of_batches_adds_to_the_penalties() -> None:
    noisy = diagnosis.report(worlds.from_arrays(table(), "y", "region"), batch_size=4)
    assert np.abs(noisy.path[-1]).sum() < np.abs(found().path[-1]).sum()


BIASES = np.linspace(-1, 1.5, 9)  # of nine environments, of which four are negative


@pytest.mark.slow
def test_any_world_with_moments_has_a_report() -> None:
    factory: Any = worlds.contradiction(biases=BIASES)
    result = diagnosis.report(factory)
    assert result.features == ("x0", "x1")
    assert result.environments == tuple("012345678")
    np.testing.assert_allclose(result.dissent, [0, 4 / 9])
    np.testing.assert_allclose(result.drives[:, 1] / BIASES, 8**-0.5, rtol=1e-5)  # V = 4, E y^2 = 2
    assert np.isnan(result.standard_errors).all()
    again = diagnosis.report(factory(jax.random.key(1)))
    np.testing.assert_allclose(again.path, result.path)


def test_it_prints_as_text_and_in_a_notebook() -> None:
    text, page = str(found()), found()._repr_html_()
    assert all(name in text for name in (*NAMES, "r in north", "largest stable step"))
    assert "&lt;spurious&gt;" in page
    assert "<spurious>" not in page
    names, shares = tuple("123456789"), np.linspace(-0.5, 0.25, 9)
    many = dataclasses.replace(found(), environments=names, correlations=np.stack([shares] * 3, 1))
    assert "least r" in str(many)
    assert str(many).count("-0.50") == str(many).count("+0.25") == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": 3}, "data must be the world of a table"),
        ({"data": lambda key: 3}, "data must be the world of a table"),
        ({"learning_rates": [0.0]}, "learning_rates must be a finite number above 0"),
        ({"learning_rates": [[0.1]]}, "learning_rates must have shape"),
        ({"batch_size": 0}, "batch_size must be a finite number at least 1"),
        ({"within": 1}, "within must be True or False"),
        (
            {"data": worlds.from_moments(second=np.diag([1.0, 0.0, 1.0, 1.0])[None].repeat(2, 0))},
            "no constant column, got the input 'x1'",
        ),
        (
            {"data": worlds.from_moments(second=np.eye(4)[None])},
            "at least two environments, got one",
        ),
        (
            {"data": worlds.from_draws(lambda key, e, n: (jnp.ones((n, 2)), jnp.ones(n)), 2)},
            "or another one with known moments, got a SampledWorld",
        ),
    ],
)
def test_wrong_input_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    arguments = {"data": worlds.contradiction(), **changes}
    with pytest.raises(ValueError, match=message):
        diagnosis.report(**arguments)
