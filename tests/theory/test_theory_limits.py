"""The order parameters and their limit against products of matrices in NumPy."""

from __future__ import annotations

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.theory import limits
from causal_sgd.types import Batch
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SPECTRUM = np.array([1.0, 0.7])


def frame(rng: np.random.Generator, dim: int, rank: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((dim, rank)))[0]


def world_of(basis: np.ndarray, invariant_rank: int = 2) -> SimpleNamespace:
    return SimpleNamespace(
        invariant_basis=basis[:, :invariant_rank], spurious_basis=basis[:, invariant_rank:]
    )


def numpy_step(overlap, gram, signal, *, eta, rho, noise=0.0, within=0.0, dim=math.inf):
    """The conditional means of A and B after one step at dimension d, in double precision."""
    r, k = overlap.shape[-2:]
    whole = np.swapaxes(overlap, -1, -2) @ overlap + gram
    power = (
        np.trace(whole @ whole, axis1=-2, axis2=-1)
        - 2 * np.sum(overlap * (signal @ overlap), (-2, -1))
        + np.sum(signal**2, (-2, -1))
    )
    nu = ((power + noise**2 + within) / (2 * rho))[..., None, None]  # d nu0
    shrink = np.eye(k) - eta * whole
    finite = nu * (gram - r * whole) / dim + whole @ gram @ whole / (rho * dim)
    mean = overlap - eta * (overlap @ whole - signal @ overlap)
    return mean, shrink @ gram @ shrink + eta**2 * (nu * whole + finite)


def random_state(rng: np.random.Generator, *batch: int, r: int = 3, k: int = 4):
    overlap, root = rng.standard_normal((*batch, r, k)), rng.standard_normal((*batch, k, k))
    return 0.6 * overlap, 0.1 * root @ np.swapaxes(root, -1, -2)


def test_conditional_means_are_those_of_drawn_measurements() -> None:
    """The formulas of `numpy_step` from the definition of the gradient, at d = 6 and m = 4."""
    rng = np.random.default_rng(0)
    dim, m, eta, noise, draws = 6, 4, 0.1, 0.8, 20_000
    basis = frame(rng, dim, 3)
    core = np.diag([1.0, 0.7, -2.0])
    core[0, 2] = core[2, 0] = 0.4
    factor = rng.standard_normal((dim, 2)) * 0.6
    residual = factor @ factor.T - basis @ core @ basis.T
    x = rng.standard_normal((draws, m, dim, dim))
    r = np.einsum("nmij,ij->nm", x, residual) - noise * rng.standard_normal((draws, m))
    gradient = np.einsum("nm,nmij->nij", r, x) / m
    gradient = (gradient + gradient.swapaxes(1, 2)) / 2
    after = factor - eta * gradient @ factor
    overlap = basis.T @ after
    outside = after - basis @ overlap
    state = basis.T @ factor, factor.T @ (factor - basis @ basis.T @ factor)
    exact = numpy_step(*state, core, eta=eta, rho=m / dim, noise=noise, dim=dim)
    drawn = overlap, outside.swapaxes(1, 2) @ outside
    for values, mean in zip(drawn, exact, strict=True):
        error = values.std(0) / math.sqrt(draws)
        assert (abs(values.mean(0) - mean) < 4.5 * error).all()


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_step_is_the_conditional_mean_for_d_to_infinity(diagonal: bool) -> None:
    rng = np.random.default_rng(1)
    state = random_state(rng, 5)
    signal = rng.standard_normal((5, 3))
    matrix = signal[..., None] * np.eye(3)
    if not diagonal:
        matrix = signal = matrix + 0.3
    numbers = {"learning_rate": np.linspace(0.02, 0.1, 5), "batch_ratio": 3.0}
    value = limits.limit_step(
        limits.OrderParameters(*state), signal, label_noise=0.5, within_variance=2.0, **numbers
    )
    rows = [
        numpy_step(
            *(array[i] for array in state), matrix[i], eta=eta, rho=3.0, noise=0.5, within=2.0
        )
        for i, eta in enumerate(np.linspace(0.02, 0.1, 5))
    ]
    for array, exact in zip(value, zip(*rows, strict=True), strict=True):
        np.testing.assert_allclose(array, np.stack(exact), rtol=1e-5, atol=3e-6)


def test_mixed_batches_count_the_variance_between_environments() -> None:
    """An example of a random environment has the mean of |UU' - S_e|^2 as its noise."""
    rng = np.random.default_rng(2)
    overlap, gram = random_state(rng)
    cores = np.array([[1.0, 0.7, 5.0], [1.0, 0.7, -3.0], [1.0, 0.7, 0.0]])
    shares = np.array([0.5, 0.3, 0.2])
    mean = shares @ cores
    within = float(shares @ ((cores - mean) ** 2).sum(1))
    value = limits.limit_step(
        limits.OrderParameters(overlap, gram),
        mean,
        learning_rate=0.1,
        batch_ratio=2.0,
        within_variance=within,
    )
    # B is linear in the power of the residual, A in the signal.
    single = [numpy_step(overlap, gram, np.diag(core), eta=0.1, rho=2.0) for core in cores]
    for index, array in enumerate(value):
        exact = sum(share * after[index] for share, after in zip(shares, single, strict=True))
        np.testing.assert_allclose(array, exact, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("counts", few([[100, 0], [75, 25]], ()))
def test_simulations_in_the_limit_take_the_same_steps(counts: list[int]) -> None:
    """`measurements.order_parameter_limit` holds U in coordinates; its steps are `limit_step`s."""
    model = models.order_parameters(dim=100, rank=4, frame=3, slots=2)
    family = worlds.two_point(dim=3, invariant_rank=2, spurious_rank=1, mean=1.0, spread=2.0)
    world = worlds.reduced(family, rows=model.rows)(jax.random.key(0))
    inside = 0.6 * np.random.default_rng(7).standard_normal((model.inner_rows, 4))
    params = jnp.zeros((model.rows, 4)).at[: model.inner_rows].set(inside)
    batch = Batch(jnp.array([0, 1]), jnp.array(counts))
    measurement = measurements.order_parameter_limit(batch_ratio=2.0, noise=0.5)

    @jax.jit  # one program instead of one for each operation
    def gradient(params):
        key = jax.random.key(1)
        data = measurement.init(key, world)
        return measurement.gradient(key, jnp.array(0), data, model, params, world, batch)[0]

    shares = np.array(counts) / sum(counts)
    cores = np.asarray(world.spurious_cores)[:, 0, 0]
    mean = float(shares @ cores)
    step = limits.limit_step(
        limits.order_parameters(params, world),
        [*np.asarray(world.invariant_spectrum).tolist(), mean],
        learning_rate=0.1,
        batch_ratio=2.0,
        label_noise=0.5,
        within_variance=float(shares @ (cores - mean) ** 2),
    )
    simulated = limits.order_parameters(params - 0.1 * gradient(params), world)
    for value, expected in zip(simulated, step, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=3e-6)


def reference_curve(spread: float, rho: float, steps: int, sequences: int):
    """Signals and the trajectory of the limit in double precision, from a small random start."""
    rng = np.random.default_rng(3)
    overlap = 0.02 * rng.standard_normal((sequences, 3, 4))
    gram = np.broadcast_to(0.01 * np.eye(4), (sequences, 4, 4))
    spurious = 1 + spread * rng.choice([-1.0, 1.0], (steps, sequences))
    signals = np.stack([np.ones_like(spurious), np.ones_like(spurious), spurious], -1)
    states = [(overlap, gram)]
    for signal in signals:
        matrix = signal[..., None] * np.eye(3)
        states.append(numpy_step(*states[-1], matrix, eta=0.1, rho=rho))
    return signals, [np.stack(arrays) for arrays in zip(*states, strict=True)]


@pytest.mark.parametrize(
    ("spread", "rho"), few([(6.0, 2.0), (3.0, 0.7), (3.0, 20.0)], {(6.0, 2.0)})
)
def test_single_precision_is_enough(spread: float, rho: float) -> None:
    signals, exact = reference_curve(spread, rho, 300, 8)
    start = limits.OrderParameters(*(array[0] for array in exact))
    curve = limits.limit_trajectory(
        start, signals, learning_rate=0.1, batch_ratio=rho, record_every=25
    )
    assert curve.overlap.shape == (13, 8, 3, 4)
    for array, reference in zip(curve, exact, strict=True):
        assert array.dtype == jnp.float32
        assert abs(array - reference[::25]).max() < 1e-5 * abs(reference).max()


def test_records_are_those_of_single_steps() -> None:
    signals, exact = reference_curve(3.0, 2.0, 7, 2)
    state = start = limits.OrderParameters(*(jnp.asarray(array[0]) for array in exact))
    numbers = {"learning_rate": 0.1, "batch_ratio": jnp.array([2.0, 5.0]), "label_noise": 0.3}
    states = [state]
    for signal in signals:
        state = limits.limit_step(state, signal, **numbers)
        states.append(state)
    curve = limits.limit_trajectory(start, signals, record_every=3, **numbers)
    for array, steps in zip(curve, zip(*states[::3], strict=True), strict=True):
        np.testing.assert_allclose(array, np.stack(steps), rtol=1e-5, atol=1e-7)
    mapped = jax.vmap(
        lambda state, signal, rho: limits.limit_trajectory(
            state, signal, learning_rate=0.1, batch_ratio=rho, label_noise=0.3, record_every=3
        ),
        in_axes=(0, 1, 0),
        out_axes=1,
    )(start, signals, numbers["batch_ratio"])
    for array, same in zip(curve, mapped, strict=True):
        np.testing.assert_allclose(array, same, rtol=1e-5, atol=1e-7)


def product_curve(dim: int, steps: int, rho: float):
    """One run of the product at dimension d with the exact law of the gradient, and its signals."""
    rng = np.random.default_rng(4)
    m, eta = rho * dim, 0.1
    basis, factor = frame(rng, dim, 3), 0.5 * rng.standard_normal((dim, 4)) / math.sqrt(dim)
    start = factor
    signals = np.ones((steps, 3))
    signals[:, 2] += 3.0 * rng.choice([-1.0, 1.0], steps)
    for signal in signals:
        residual = factor @ factor.T - (basis * signal) @ basis.T
        norm = np.linalg.norm(residual)
        q = rng.chisquare(m)
        wigner = rng.standard_normal((dim, dim))
        wigner += wigner.T
        wigner /= 2
        direction = residual / norm
        noise = wigner - np.sum(wigner * direction) * direction
        factor = factor - eta / m * (q * residual + norm * math.sqrt(q) * noise) @ factor
    return basis, start, factor, signals


@pytest.mark.parametrize(
    "dim",
    [
        pytest.param(300, marks=pytest.mark.slow),
        pytest.param(4000, marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_the_limit_follows_the_product(dim: int) -> None:
    """Deviations are of the order (k + r)^(1/2) d^(-1/2); each is below three of these."""
    steps, rho = 20, 2.0
    basis, start, end, signals = product_curve(dim, steps, rho)
    world = world_of(basis)
    curve = limits.limit_trajectory(
        limits.order_parameters(start, world), signals, learning_rate=0.1, batch_ratio=rho
    )
    limit = limits.order_statistics(jax.tree.map(lambda array: array[-1], curve), [1.0, 1.0])
    product = limits.order_statistics(limits.order_parameters(end, world), [1.0, 1.0])
    for name, value in limit.items():
        assert abs(float(value) - float(product[name])) < 3 / math.sqrt(dim), name
    # Without the noise of the batches, what is outside the signals would only decay.
    states = [limits.order_parameters(start, world)]
    for signal in signals:
        states.append(numpy_step(*states[-1], np.diag(signal), eta=0.1, rho=math.inf))
    silent = math.sqrt(np.trace(states[-1][1]))
    assert float(product["complement_signal"]) > silent + 3 / math.sqrt(dim)


def test_order_parameters_are_projections() -> None:
    rng = np.random.default_rng(5)
    basis, factor = frame(rng, 20, 3), rng.standard_normal((2, 20, 4))
    state = limits.order_parameters(factor, world_of(basis))
    np.testing.assert_allclose(state.overlap, basis.T @ factor, atol=1e-5)
    outside = factor - basis @ basis.T @ factor
    np.testing.assert_allclose(state.gram, outside.swapaxes(1, 2) @ outside, atol=2e-5)
    # A spurious basis that overlaps with the invariant one spans the same space.
    tilted = basis.copy()
    tilted[:, 2] = 0.6 * basis[:, 0] + 0.8 * basis[:, 2]
    same = limits.order_parameters(factor, world_of(tilted))
    np.testing.assert_allclose(same.overlap, state.overlap, atol=1e-5)
    np.testing.assert_allclose(same.gram, state.gram, atol=2e-5)


@pytest.mark.parametrize("scale", few([1.0, 1e-3], {1e-3}))
def test_statistics_are_those_of_the_product(scale: float) -> None:
    """Also for errors of 1e-3, whose squares a difference of Gram matrices would lose."""
    rng = np.random.default_rng(6)
    basis = frame(rng, 30, 3)
    factor = scale * rng.standard_normal((30, 4)) / math.sqrt(30)
    factor[:, :2] += basis[:, :2] * np.sqrt(SPECTRUM)
    target = (basis[:, :2] * SPECTRUM) @ basis[:, :2].T
    state = limits.order_parameters(factor, world_of(basis))
    value = limits.order_statistics(state, SPECTRUM)
    inside = basis.T @ factor
    exact = {
        "invariant_signal": np.linalg.norm(inside[:2]),
        "spurious_signal": np.linalg.norm(inside[2]),
        "complement_signal": np.linalg.norm(factor - basis @ inside),
        "invariant_error": np.linalg.norm(factor @ factor.T - target),
    }
    assert value.keys() == exact.keys()
    for name, number in exact.items():
        np.testing.assert_allclose(value[name], number, rtol=3e-4, err_msg=name)


STATE = limits.OrderParameters(np.ones((3, 2)), np.eye(2))
NUMBERS = {"learning_rate": 0.1, "batch_ratio": 2.0}
BAD = [
    (lambda: limits.limit_step(STATE, np.ones(4), **NUMBERS), "signal must have the shape"),
    (lambda: limits.limit_step(STATE, np.ones((5, 3)), **NUMBERS), "signal must have the shape"),
    (
        lambda: limits.limit_step(STATE, np.arange(9.0).reshape(3, 3), **NUMBERS),
        "signal must be symmetric",
    ),
    (
        lambda: limits.limit_step(STATE, np.ones(3), **NUMBERS | {"learning_rate": 0}),
        "learning_rate must be a finite number above 0",
    ),
    (
        lambda: limits.limit_step(STATE, np.ones(3), **NUMBERS | {"batch_ratio": -1}),
        "batch_ratio must be a finite number above 0",
    ),
    (
        lambda: limits.limit_step(STATE, np.ones(3), within_variance=-1, **NUMBERS),
        "within_variance must be a finite number at least 0",
    ),
    (
        lambda: limits.limit_trajectory(STATE, np.ones((4, 3)), record_every=0, **NUMBERS),
        "record_every must be a whole number, at least 1",
    ),
    (
        lambda: limits.limit_trajectory(STATE, np.ones((4, 5, 3)), **NUMBERS),
        "signals must have the shape",
    ),
    (
        lambda: limits.limit_step(limits.OrderParameters(np.ones((3, 2)), np.eye(3)), 1, **NUMBERS),
        "state must have an overlap",
    ),
    (lambda: limits.order_statistics(STATE, np.ones(4)), "spectrum must have the shape"),
    (lambda: limits.order_parameters(np.ones((4, 2)), object()), "world must have the arrays"),
    (
        lambda: limits.order_parameters(np.ones((4, 2)), world_of(np.eye(5))),
        "factor must have the shape",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
