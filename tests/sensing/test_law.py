"""Do `gaussian_law`, `low_rank_law` and `streamed` have the law of the batch gradient?

The oracle is its definition: G = (1/m) sum_i r_i sym(X_i) and loss = sum_i r_i^2 / (4 m), with iid
normal X_i and r_i = <X_i, R_e> - noise. Its mean and covariance are known in closed form; third and
fourth moments come from an independent NumPy implementation. A model whose parameters are the
estimate itself returns the gradient as G / 2; the low-rank law returns G U for a square factor U,
which is divided by U. More tests of that law are in test_low_rank.py.

Error rates: every z-score is standard normal for correct code (fourth moments nearly so). A case
has fewer than 250 of them, so `max |z| < 5` fails by chance in 1.5e-4 of all cases, and
`rms z < 1.7` in about 2e-4, if no more than 15 of them are independent. Seeds are fixed: chance was
tried once, when they were chosen.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.sensing import World, measurements, models
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.types import Batch
from support.cases import few
from support.law import (
    DIM,
    DRAWS,
    LAWS,
    UPPER,
    Case,
    closed_form,
    definition,
    features,
    high_moments,
    judge,
    low_moments,
    make_case,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

READ_OUT = MatrixModel(init=lambda key: jnp.zeros((DIM, DIM)), estimate=lambda params: params)
FACTORED = models.factored(dim=DIM)


CASES = {
    "one environment": make_case([12], cores=[0]),
    "one example": make_case([1], cores=[0]),
    "two environments": make_case([7, 5], cores=[0, 1]),
    "two environments with one example each": make_case([1, 1], cores=[0, 1]),
    "a pure batch that is treated as a mixture": make_case([12, 0], cores=[0, 1]),
    "four environments, two of them empty": make_case([6, 0, 7, 0], cores=[0, 1, 2, 3]),
    "four environments, two identical, counts of one": make_case([1, 1, 4, 6], cores=[0, 1, 1, 2]),
    "spurious signals in every direction": make_case([7, 5], cores=[0, 1], spurious_rank=5),
    "one spurious direction": make_case([7, 5], cores=[0, 1], spurious_rank=1),
    "errors within the spurious span": make_case(
        [7, 5], cores=[0, 1], error="within the spurious span"
    ),
    "no residual in one of two environments": make_case([7, 5], cores=[0, 1], error="none here"),
}
NOISELESS = (
    "one environment",
    "one example",
    "two environments",
    "no residual in one of two environments",
)
QUICK = {  # one of each kind
    ("one environment", 0.7, "law"),
    ("four environments, two of them empty", 0.7, "law"),
    ("errors within the spurious span", 0.7, "law"),
    ("no residual in one of two environments", 0.0, "law"),
}
WITHOUT_FACTOR = (  # the estimate has no inverse, or negative eigenvalues
    "errors within the spurious span",
    "no residual in one of two environments",
)
WITHOUT_RESIDUAL = {
    "a pure batch": make_case([12], cores=[0], error="zero"),
    "a mixture": make_case([7, 5], cores=[0, 0], error="zero"),
    "a mixture with an empty environment": make_case([12, 0], cores=[0, 0], error="zero"),
    "four environments": make_case([5, 0, 6, 1], cores=[0, 0, 0, 0], error="zero"),
}


@functools.partial(jax.jit, static_argnames=("kind", "plain", "slab_size"))
def gradients(
    keys: jax.Array,
    world: World,
    estimate: jax.Array,
    counts: jax.Array,
    noise: float,
    *,
    kind: str,
    plain: bool = False,
    slab_size: int = 5,
) -> tuple[jax.Array, jax.Array]:
    """G [n, d, d] and batch loss [n] for each key; `plain` passes a plain 0 for the noise."""
    noise = 0.0 if plain else noise
    measurement = {
        "law": lambda: measurements.gaussian_law(noise=noise),
        "low rank": lambda: measurements.low_rank_law(noise=noise),
        "streamed": lambda: measurements.streamed(noise=noise, slab_size=slab_size),
    }[kind]()
    batch = Batch(jnp.arange(len(counts)), counts)
    model, params = READ_OUT, estimate
    if kind == "low rank":
        model, params = FACTORED, jnp.linalg.cholesky(estimate)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        data = measurement.init(jax.random.key(0), world)
        step = jnp.zeros((), jnp.int32)
        gradient, loss = measurement.gradient(key, step, data, model, params, world, batch)
        if kind == "low rank":
            return jax.scipy.linalg.solve_triangular(
                params, gradient.T, lower=True, trans=1
            ).T, loss
        return 2 * gradient, loss

    return jax.vmap(one)(keys)


def draw(
    case: Case, noise: float, kind: str, *, seed: int = 0, draws: int = DRAWS, **options
) -> np.ndarray:
    """Features of so many batches, [n, 16]."""
    keys = jax.random.split(jax.random.key(seed), draws)
    counts = jnp.asarray(case.counts, jnp.int32)
    gradient, loss = gradients(keys, case.world, case.estimate, counts, noise, kind=kind, **options)
    gradient = np.asarray(gradient)
    assert np.abs(gradient - np.swapaxes(gradient, 1, 2)).max() < 1e-4
    return features(gradient, np.asarray(loss))


@functools.cache
def oracle_of(name: str, noise: float) -> np.ndarray:
    return definition(CASES[name], noise)


def check_mean_and_covariance(sample: np.ndarray, case: Case, noise: float) -> np.ndarray:
    return low_moments(sample, *closed_form(case, noise))


def check_higher_moments(
    sample: np.ndarray, oracle: np.ndarray, case: Case, noise: float
) -> np.ndarray:
    return high_moments(sample, oracle, closed_form(case, noise)[0])


@pytest.mark.parametrize(
    ("name", "noise", "kind"),
    few(
        [
            (name, noise, kind)
            for kind in ("law", "low rank")  # test_low_rank.py has cases of its own
            for noise, names in ((0.7, CASES), (0.0, NOISELESS))
            for name in names
            if kind == "law" or name not in WITHOUT_FACTOR
        ],
        QUICK,
    ),
)
def test_the_law_has_the_exact_mean_and_covariance(name: str, noise: float, kind: str) -> None:
    case = CASES[name]
    sample = draw(case, noise, kind, plain=noise == 0)
    judge(check_mean_and_covariance(sample, case, noise), enough=150)


@pytest.mark.parametrize(
    "kind",
    ["law", pytest.param("low rank", marks=pytest.mark.slow)],  # see test_low_rank.py
)
@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("four environments, two identical, counts of one", 0.7),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("one environment", 0.7),
                ("two environments", 0.0),
                ("four environments, two of them empty", 0.7),
                ("spurious signals in every direction", 0.7),
            ]
        ),
    ],
)
def test_the_law_has_the_third_and_fourth_moments_of_the_definition(
    name: str, noise: float, kind: str
) -> None:
    case = CASES[name]
    oracle = oracle_of(name, noise)
    judge(check_mean_and_covariance(oracle, case, noise), enough=150)  # the oracle itself
    sample = draw(case, noise, kind, plain=noise == 0)
    judge(check_higher_moments(sample, oracle, case, noise), enough=80)


# 12 examples: slabs of 5 leave a rest, those of 6 leave none, one of 64 is never full
@pytest.mark.parametrize(
    ("slab_size", "draws"), few([(5, 100_000), (6, 100_000), (64, 20_000)], {(5, 100_000)})
)
def test_streamed_has_the_exact_mean_and_covariance_for_any_slab(
    slab_size: int, draws: int
) -> None:
    case = CASES["four environments, two identical, counts of one"]
    noise = 7.0  # most of the variance, so that 5 % of it shows
    sample = draw(case, noise, "streamed", slab_size=slab_size, draws=draws)
    judge(check_mean_and_covariance(sample, case, noise), enough=150)


@pytest.mark.slow
def test_streamed_and_the_law_have_the_same_higher_moments() -> None:
    case = CASES["four environments, two of them empty"]
    streamed = draw(case, 0.7, "streamed", seed=11)
    judge(check_mean_and_covariance(streamed, case, 0.7), enough=150)
    judge(check_higher_moments(draw(case, 0.7, "law"), streamed, case, 0.7), enough=80)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("two environments", "law"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("one environment", "law"),
                ("two environments", "low rank"),
                ("one environment", "low rank"),
            )
        ),
    ],
)
def test_a_noise_of_zero_has_the_same_law_whether_it_is_traced_or_not(name: str, kind: str) -> None:
    sample = draw(CASES[name], 0.0, kind, plain=False)
    judge(check_mean_and_covariance(sample, CASES[name], 0.0), enough=150)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a mixture with an empty environment", "law"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("a pure batch", "law"),
                ("a mixture", "law"),
                ("four environments", "streamed"),
            )
        ),
    ],
)
def test_without_residuals_only_the_label_noise_moves_anything(name: str, kind: str) -> None:
    case = WITHOUT_RESIDUAL[name]
    assert not case.residuals.any()
    assert not draw(case, 0.0, kind, plain=True).any()
    assert not draw(case, 0.0, kind).any()
    judge(check_mean_and_covariance(draw(case, 0.7, kind), case, 0.7), enough=150)


@jax.jit
def population(world: World, estimate: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    measurement, step = measurements.population(), jnp.zeros((), jnp.int32)
    data = measurement.init(jax.random.key(0), world)
    return measurement.gradient(jax.random.key(0), step, data, READ_OUT, estimate, world, batch)


def test_the_mean_gradient_is_the_mean_residual_of_the_batch() -> None:
    case = CASES["four environments, two identical, counts of one"]
    mean, _ = closed_form(case, 0.0)
    expected = np.einsum("e,eij->ij", case.counts / case.counts.sum(), case.residuals)
    np.testing.assert_allclose(mean[:-1], expected[UPPER], rtol=1e-12)
    batch = Batch(jnp.arange(4), jnp.asarray(case.counts, jnp.int32))
    gradient, loss = population(case.world, case.estimate, batch)
    np.testing.assert_allclose(2 * gradient, expected, atol=1e-5)
    np.testing.assert_allclose(loss, mean[-1], rtol=1e-5)


def test_the_population_gradient_of_a_mixture_is_the_mean_of_the_pure_ones() -> None:
    case = CASES["four environments, two identical, counts of one"]

    def gradient(environments: list[int], counts: list[int]):
        return population(
            case.world, case.estimate, Batch(jnp.asarray(environments), jnp.asarray(counts))
        )

    together = gradient([0, 1, 2, 3], [1, 1, 4, 6])
    alone = [gradient([e], [3]) for e in range(4)]
    for index in range(2):
        mean = sum(
            share / 12 * each[index] for share, each in zip([1, 1, 4, 6], alone, strict=True)
        )
        np.testing.assert_allclose(together[index], mean, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [*LAWS, "streamed"])
def test_a_gradient_does_not_depend_on_what_is_mapped_beside_it(kind: str) -> None:
    case = CASES["four environments, two identical, counts of one"]
    key = jax.random.key(5)
    # one lane is empty in an environment, one has twice as many slabs as the others
    counts = jnp.array([[1, 1, 4, 6], [0, 3, 0, 9], [8, 1, 4, 11]], jnp.int32)
    noises = jnp.array([0.7, 0.0, 2.0])

    @jax.jit
    @jax.vmap
    def beside(counts: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        return gradients(key[None], case.world, case.estimate, counts, noise, kind=kind)

    together = beside(counts, noises)
    for lane in range(3):
        among_its_like = beside(counts[jnp.full(3, lane)], noises[jnp.full(3, lane)])
        for one, other in zip(together, among_its_like, strict=True):
            np.testing.assert_array_equal(one[lane], other[lane])


def test_tiny_and_huge_residuals_stay_finite() -> None:
    for name in ("one environment", "two environments"):
        case = CASES[name]
        world = case.world._replace(
            invariant_spectrum=np.zeros_like(case.world.invariant_spectrum),
            spurious_cores=np.zeros_like(case.world.spurious_cores),
        )
        keys = jax.random.split(jax.random.key(0), DRAWS)
        for scale in (1e-30, 1e-18, 1e15):
            gradient, loss = gradients(
                keys,
                world,
                np.float32(scale) * case.estimate,
                jnp.asarray(case.counts),
                0.0,
                kind="law",
            )
            assert np.isfinite(gradient).all(), (name, scale)
            assert (loss >= 0).all(), (name, scale)
