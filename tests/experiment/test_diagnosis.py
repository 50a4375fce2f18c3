"""Diagnoses of trained models against closed forms, and against plain loops in double precision."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import theory
from causal_sgd.experiment import diagnosis
from causal_sgd.experiment.diagnosis._diagnose import _judged as judged
from causal_sgd.experiment.diagnosis._products import rejecting_steps, with_errors
from causal_sgd.supervised import losses, measurements, models, worlds
from causal_sgd.training import algorithms, samplers
from causal_sgd.types import Snapshot
from support.diagnosed import snapshot_of

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RATES = np.array([0.1, 0.4, 0.8])
BIASES = np.array([1.2, -0.8])
CONTRADICTION = worlds.contradiction(biases=BIASES)
MOMENTS, SQUARES = measurements.moments(), models.hadamard(dim=2)  # once, for one program
TURNS: Any = samplers.cyclic(batch_size=4)
SPURIOUS = {"positive": np.array([False, True])}
PARAMS = {"positive": jnp.array([1.0, 0.3])}
BRIEF: Any = {"num_steps": 40, "burn_in": 10, "num_blocks": 10}
rng = np.random.default_rng(0)


def squares(**changes: Any) -> diagnosis.Diagnosis:
    """The diagnosis of the spurious weight u^2 of the contradiction world."""
    arguments: dict[str, Any] = {
        "world": CONTRADICTION,
        "sampler": TURNS,
        "measurement": MOMENTS,
        "model": SQUARES,
        "subspace": SPURIOUS,
        "learning_rate": RATES,
        **BRIEF,
        **changes,
    }
    return diagnosis.diagnose(PARAMS, **arguments)


@functools.cache
def turns() -> diagnosis.Diagnosis:
    return squares()


def test_the_exponents_of_a_square_are_those_of_theory() -> None:
    second = np.array([np.diag([1.0, 4.0])] * 2)
    cross = np.stack([np.ones(2), BIASES], 1)
    found = turns().numbers
    for rate, exponent in zip(RATES, found.exponents[:, 0], strict=True):
        law = theory.sparse.growth_exponents(
            np.array([1.0, 0.0]), second, cross, learning_rate=rate
        )
        assert exponent == pytest.approx(float(law[1]), abs=2e-6)
    np.testing.assert_allclose(found.drive[0, :, 0], BIASES, rtol=1e-6)
    assert not found.defect.any()
    assert not found.coupling.any()


def test_the_window_is_where_the_product_of_the_factors_is_below_one() -> None:
    product, total = float(np.prod(BIASES)), float(np.sum(BIASES))
    low = -total / product  # (1 + eta b_1)(1 + eta b_2) = 1
    high = float(np.roots([product, total, 2]).real.max())  # and -1
    np.testing.assert_allclose(turns().numbers.window, [low, high], rtol=2e-3)
    assert turns().critical_learning_rate == pytest.approx(low, rel=2e-3)


@pytest.mark.slow
def test_a_cap_limits_the_factors_of_gates() -> None:
    found = squares(cap=0.7, learning_rate=[0.4, 2.0], num_steps=400).numbers
    logs = np.log(1 + np.clip(np.outer([0.4, 2.0], BIASES), -0.7, 0.7)).mean(1)
    np.testing.assert_allclose(found.exponents[:, 0], logs, atol=2e-6)
    # With it no step is too large for the gate.
    assert found.window[1] == np.inf


def test_the_verdicts_name_the_step_and_the_reason() -> None:
    found = turns()
    assert found.verdicts == ("kept", "kept", "rejected")
    assert "too small: rejected from 0.4" in found.reasons[0]
    assert "die out" in found.reasons[2]
    with pytest.raises(ValueError, match="verdicts must agree"):
        _ = found.verdict
    agreeing = squares(world=worlds.contradiction(biases=[0.9, 0.3]))
    assert agreeing.verdict == "kept"
    assert "every environment drives it up" in agreeing.reasons[0]
    assert agreeing.critical_learning_rate == np.inf
    always = squares(world=worlds.contradiction(biases=[-0.9, 0.3]))
    assert always.verdict == "rejected"
    assert always.critical_learning_rate == 0


def test_the_largest_stable_steps_are_those_of_the_hessian() -> None:
    # u_1^2 with S = 1 at u = 1 has the Hessian 2; that of the closed u_2 is -b_e.
    assert turns().largest_stable_step == pytest.approx(1.0, rel=1e-5)
    unstable = squares(learning_rate=[0.1, 0.4, 1.1])
    assert "beyond the largest stable one, 1" in unstable.reasons[2]


@pytest.mark.slow
def test_standard_errors_of_random_batches_are_those_of_independent_steps() -> None:
    steps = 2000
    found = squares(
        sampler=samplers.hetero(batch_size=4),
        key=jax.random.key(5),
        num_steps=steps,
        num_blocks=40,
    ).numbers
    logs = np.log(np.abs(1 + RATES[:, None] * BIASES))
    errors = logs.std(1) / steps**0.5
    scores = (found.exponents[:, 0] - logs.mean(1)) / errors
    assert (np.abs(scores) < 4.5).all()
    # The variance of 40 blocks has a relative deviation of sqrt(2 / 39).
    assert (np.abs((found.standard_error[:, 0] / errors) ** 2 - 1) < 4.5 * (2 / 39) ** 0.5).all()


@pytest.mark.slow
def test_batches_of_drawn_moments_shift_the_exponent_as_their_variance_does() -> None:
    number = 8
    found = squares(
        measurement=measurements.batch_moments(),
        sampler=samplers.cyclic(batch_size=number),
        key=jax.random.key(3),
        num_steps=4000,
    ).numbers
    values = []
    for environment, bias in enumerate(BIASES):
        draws = np.random.default_rng(environment).normal(size=(2, 200_000, number))
        spurious = bias * draws[0] + np.sqrt(4 - bias**2) * draws[1]
        values.append((spurious * draws[0]).mean(1))
    logs = np.log(np.abs(1 + RATES[:, None, None] * np.array(values)[None])).mean((1, 2))
    assert (np.abs(found.exponents[:, 0] - logs) < 4.5 * found.standard_error[:, 0]).all()


def plain_exponents(matrices: np.ndarray, rate: float, burn_in: int) -> np.ndarray:
    """The exponents of a product of I - rate H_t, by QR in double precision."""
    frame, logs = np.linalg.qr(rng.normal(size=matrices.shape[1:]))[0], []
    for matrix in matrices:
        frame, triangle = np.linalg.qr(frame - rate * matrix @ frame)
        logs.append(np.log(np.abs(np.diag(triangle))))
    return np.mean(logs[burn_in:], 0)


@pytest.mark.parametrize("dim", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_leading_exponents_of_turning_subspaces_are_those_of_a_plain_loop(dim: int) -> None:
    roots = rng.normal(size=(2, dim + 2, 60)) * np.linspace(0.4, 1.6, dim + 2)[None, :, None]
    second = roots @ roots.transpose(0, 2, 1) / 60
    second[:, -1], second[:, :, -1] = 0, 0
    second[:, -1, -1] = 1
    options: Any = {"sampler": TURNS, "subspace": 2, "num_steps": 400, "burn_in": 400}

    def snapshot() -> Snapshot:
        world, model = worlds.from_moments(second=second), models.linear(dim=dim)
        return snapshot_of({"weights": jnp.zeros(dim)}, world, MOMENTS, model)

    @jax.jit
    def exponents(rates: jax.Array) -> jax.Array:
        return diagnosis.exponents(snapshot(), learning_rate=rates, **options)[0]

    found = exponents(jnp.array([0.2, 1.5]))
    matrices = np.tile(second[:, :dim, :dim] / 2, (400, 1, 1))  # losses are over 4
    for rate, values in zip((0.2, 1.5), found, strict=True):
        expected = plain_exponents(matrices, rate, 400)[:2]
        np.testing.assert_allclose(values, expected, atol=2e-3 if dim == 20 else 2e-5)
    if dim == 20:  # the whole gradient is what the environments add; two directions have a part
        whole = diagnosis.growth(snapshot(), learning_rate=0.2, **options)
        slopes = np.linalg.norm(second[:, :dim, dim], axis=1) / 2
        np.testing.assert_allclose(whole.slope, slopes, rtol=1e-5)
        assert (np.asarray(whole.defect) <= np.asarray(whole.slope)[None] * (1 + 1e-5)).all()


def test_what_is_disturbed_is_not_invariant_with_its_reason() -> None:
    """The verdict on numbers; programs that find such numbers are in slow tests."""
    numbers = turns().numbers
    for name, words in (("defect", "no common fixed point"), ("coupling", "parameters outside")):
        changed = numbers._replace(**{name: np.full((3, 2), 0.01)})
        for place, rate in enumerate(RATES):
            verdict, reason = judged(changed, place, float(rate), 1e-3)
            assert verdict == "not invariant: cannot be rejected this way"
            assert words in reason
        # One in a hundred of the stiffness, which is 1.2.
        assert judged(changed, 2, 0.8, 0.1)[0] == "rejected"


X, OWNERS = rng.normal(size=(60, 2)), np.repeat(["a", "b"], [40, 20])
Y = X[:, 0] + np.where(OWNERS == "a", 1.0, -1.0) * X[:, 1]
ROWS = worlds.from_arrays(X, Y, OWNERS)


@pytest.mark.slow
def test_one_weight_of_a_linear_model_is_not_invariant() -> None:
    # At zero the gradient is E x (f - y) / 2.
    weights = np.array([0.7, 0.0])
    mask = {"weights": np.array([False, True])}
    linear = diagnosis.diagnose(
        {"weights": jnp.asarray(weights)},
        world=ROWS,
        sampler=TURNS,
        measurement=measurements.moments(),
        model=models.linear(dim=2),
        subspace=mask,
        learning_rate=0.3,
        **BRIEF,
    )
    residuals = X @ weights - Y
    defects = [abs((X[:, 1] * residuals)[name == OWNERS].mean()) / 2 for name in "ab"]
    np.testing.assert_allclose(linear.numbers.defect[0], defects, rtol=1e-4)
    assert linear.verdict == "not invariant: cannot be rejected this way"
    assert "no common fixed point" in linear.reasons[0]


@pytest.mark.slow
def test_a_gradient_that_vanishes_by_chance_is_not_invariant_either() -> None:
    # Labels without noise: at the solution all gradients vanish, but only there.
    interpolated = worlds.from_arrays(X, X[:, 0], OWNERS)
    found = diagnosis.diagnose(
        {"weights": jnp.array([1.0, 0.0])},
        world=interpolated,
        sampler=TURNS,
        measurement=measurements.moments(),
        model=models.linear(dim=2),
        subspace={"weights": np.array([False, True])},
        learning_rate=0.3,
        **BRIEF,
    )
    assert found.numbers.defect.max() < 1e-5
    assert found.verdict.startswith("not invariant")
    assert "follows parameters outside" in found.reasons[0]
    # The coupling of one weight to one other one is the entry of S / 2 between them.
    entries = [abs((X[:, 0] * X[:, 1])[name == OWNERS].mean()) / 2 for name in "ab"]
    shares = np.asarray(found.numbers.coupling[0]) / entries
    assert (shares > 0.1).all()
    assert (shares < 3).all()  # four normals stand for the norm


@pytest.mark.slow
def test_an_open_gate_is_not_invariant_unless_it_is_closed() -> None:
    assert squares(value=None, learning_rate=0.4).verdict.startswith("not invariant")


@pytest.mark.slow
def test_a_mask_of_many_parameters_has_the_exponents_of_its_leading_directions() -> None:
    dim = 24
    values = np.geomspace(0.1, 1.0, dim)
    scale = worlds.from_moments(second=np.diag([*values, 1.0, 1.0])[None])
    found = diagnosis.diagnose(
        {"weights": jnp.ones(dim)},
        world=scale,
        sampler=TURNS,
        measurement=measurements.moments(),
        model=models.linear(dim=dim),
        subspace="weights",
        value=0.0,
        learning_rate=[0.5, 7.0],
        num_steps=100,
        burn_in=300,
    )
    for rate, exponents in zip((0.5, 7.0), found.numbers.exponents, strict=True):
        expected = np.sort(np.log(np.abs(1 - rate * values / 2)))[::-1][:4]
        np.testing.assert_allclose(exponents, expected, atol=5e-3)
    assert found.verdicts == ("rejected", "kept")
    assert found.critical_learning_rate == 0
    # Frobenius norms from four normals.
    ratio = float(found.numbers.stiffness[0, 0]) / np.linalg.norm(values / 2)
    assert 0.5 < ratio < 1.5


@pytest.mark.slow
def test_endless_examples_have_defects_and_drives_from_batches() -> None:
    world = worlds.contradiction(biases=BIASES)
    fresh = measurements.examples(fresh=64, loss=losses.Loss(lambda f, y: (f - y) ** 2 / 4 + 0 * f))
    found = squares(
        world=world,
        measurement=fresh,
        sampler=samplers.hetero(batch_size=64),
        learning_rate=0.4,
        key=jax.random.key(2),
    ).numbers
    # 32 batches of 64; Var(x r) <= V sigma^2 + b^2.
    scores = (np.asarray(found.drive[0, :, 0]) - BIASES) / np.sqrt((4 + BIASES**2) / 2048)
    assert (np.abs(scores) < 4.5).all()
    assert not found.defect.any()


@pytest.mark.slow
def test_growth_serves_many_runs_in_one_program() -> None:
    model, measurement = SQUARES, MOMENTS
    base = snapshot_of(PARAMS, CONTRADICTION, measurement, model)
    traces = []

    def exponents(weight: jax.Array, rates: jax.Array) -> jax.Array:
        traces.append(1)
        params = {"positive": jnp.stack([weight, jnp.ones(())])}
        snapshot = snapshot_of(params, CONTRADICTION, measurement, model)
        return diagnosis.growth(
            snapshot, sampler=TURNS, subspace=SPURIOUS, learning_rate=rates, **BRIEF
        ).exponents

    found = jax.jit(jax.vmap(exponents, (0, None)))(jnp.array([0.5, 1.0]), jnp.asarray(RATES))
    assert found.shape == (2, 3, 1)
    assert len(traces) == 1
    alone = diagnosis.growth(
        base, sampler=TURNS, subspace=SPURIOUS, learning_rate=RATES[1], **BRIEF
    )
    np.testing.assert_allclose(found[1, 1], alone.exponents[0], atol=1e-6)


@pytest.mark.slow
def test_a_snapshot_of_a_run_can_be_diagnosed() -> None:
    parts: dict[str, Any] = {
        "world": CONTRADICTION,
        "sampler": TURNS,
        "measurement": MOMENTS,
        "model": SQUARES,
    }
    algorithm = algorithms.sgd(**parts, optimizer=optax.sgd(0.1))
    snapshot = algorithm.snapshot(jax.random.key(0), algorithm.init(jax.random.key(0)))
    found = diagnosis.diagnose(
        snapshot, sampler=TURNS, subspace=SPURIOUS, learning_rate=RATES, **BRIEF
    )
    # The invariant weight is not learned yet, on which the bias does not depend here.
    assert found.verdicts == turns().verdicts


def test_it_prints_as_text_and_in_a_notebook() -> None:
    text, page = str(turns()), turns()._repr_html_()
    assert "rejected at learning rates from 0.4" in text
    assert "no forecast" in text
    assert page.count("<table>") == 2
    assert max(map(len, text.splitlines())) < 140


def test_signs_of_an_exponent_bound_an_interval() -> None:
    rates, wide = jnp.array([3.0, 1.0, 2.0, 4.0]), jnp.full(4, 0.1)
    cases = {
        (-1.0, 0.5, -0.5, 1.0): ([1.5, 3.5], [0.1, 0.05]),
        (1.0, 1.0, 1.0, 1.0): ([np.inf, np.inf], [0, 0]),
        (-1.0, -1.0, -1.0, -1.0): ([0, np.inf], [0, 0]),
        (1.0, -1.0, -1.0, 1.0): ([0, 2.5], [0, 0.05]),
    }

    @jax.jit
    def all_windows(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(lambda each: rejecting_steps(rates, each, wide))(values)

    windows = all_windows(jnp.array(list(cases)))
    for place, (window, errors) in enumerate(cases.values()):
        np.testing.assert_allclose(windows[0][place], window, rtol=1e-6)
        np.testing.assert_allclose(windows[1][place], errors, rtol=1e-6)
    single = jax.jit(rejecting_steps)(jnp.array([0.3]), jnp.array([-0.1]), jnp.array([0.0]))[0]
    np.testing.assert_allclose(single, [0, np.inf])


def test_errors_of_blocks_do_not_spoil_infinite_means() -> None:
    logs = jnp.asarray(rng.normal(size=(1, 1000, 2))).at[0, 3, 1].set(-jnp.inf)
    means, errors = jax.jit(with_errors, static_argnums=1)(logs, 20)
    assert means[0, 1] == -jnp.inf
    assert np.isfinite(errors).all()
    assert float(errors[0, 0]) == pytest.approx(1000**-0.5, rel=0.6)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such name": ({"subspace": "gates"}, "subspace must be one of positive"),
    "nothing": ({"subspace": {"positive": False}}, "at least one parameter"),
    "another tree": ({"subspace": {"negative": True}}, "subspace must"),
    "numbers": ({"subspace": {"positive": np.array([0, 1])}}, "subspace must be a whole number"),
    "another shape": ({"subspace": {"positive": np.ones(3, bool)}}, "shapes of the parameters"),
    "too many": ({"subspace": 3}, "subspace must be a whole number"),
    "negative step": ({"learning_rate": [0.1, -0.1]}, "learning_rate must be a finite number"),
    "a table": ({"learning_rate": [[0.1]]}, "learning_rate must have shape"),
    "no sampler": ({"sampler": samplers.hetero}, "sampler must be a Sampler"),
    "few blocks": ({"num_blocks": 1}, "num_blocks must be a whole number, at least 2"),
    "few steps": ({"num_steps": 5}, "num_steps must be a whole number, at least 10"),
    "tolerance": ({"tolerance": 0.0}, "tolerance must be a finite number above 0"),
    "cap": ({"cap": 0.0}, "cap must be a finite number above 0"),
    "capped directions": ({"cap": 0.5, "subspace": 2}, "cap must be None but for a mask"),
    "no world": ({"world": None}, "world must be given"),
    "a number": ({"world": lambda key: 3}, "world's result must be a world"),
    "another model": (
        {"model": models.hadamard(dim=3)},
        r"params\['positive'\] must have shape \[3\], got \[2\]: of one run",
    ),
    "another structure": (
        {"model": models.linear(dim=2)},
        r"params must have the structure of the model's, {'weights': \*}, got {'positive': \*}",
    ),
    "too many examples": (
        {"measurement": measurements.examples(most=2)},
        "batch_size must be at most 2, the examples that the measurement has, got 4",
    ),
    "two values": ({"value": np.zeros(2)}, "value must be a finite number, got an array"),
    "too large a cap": ({"cap": 2.0}, "cap must be a finite number above 0 and at most 1"),
    "a list of masks": ({"subspace": {"positive": [False, True]}}, r"an array or a single value"),
    "no risks": (
        {"measurement": measurements.batch_directions()},
        "measurement must offer risks on a batch .* got batch_directions",
    ),
}


@pytest.mark.slow
def test_a_sampler_with_arrays_is_no_name_of_a_program() -> None:
    @dataclasses.dataclass
    class Drawn:
        init: Any
        draw: Any
        batch_size: Any = dataclasses.field(default_factory=lambda: jnp.asarray(4))
        checked: bool = True

    own: Any = Drawn(TURNS.init, TURNS.draw)  # without a hash, as a dataclass that can change
    found = squares(sampler=own)
    np.testing.assert_allclose(found.numbers.exponents, turns().numbers.exponents, atol=1e-6)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_at_once(name: str) -> None:
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        squares(**changes)
