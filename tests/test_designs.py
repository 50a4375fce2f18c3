"""Do data sets, and the batches drawn from them, give the gradient that plain NumPy gives with the same examples?

The model's parameters are the estimate itself, so that its gradient is G / 2. Statistical tests are at the level 1e-3
each, with fixed seeds, unless they say otherwise.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core as jex_core
from scipy import stats

from causal_sgd import draws, measurements, metrics, models, samplers, worlds
from causal_sgd.algorithms import sgd
from causal_sgd.measurements import designs, products
from causal_sgd.measurements.algebra import packed_dim
from causal_sgd.simulate import run
from causal_sgd.types import Batch, Measurement, Model, World

LEVEL = 1e-3
DIM, ENVIRONMENTS, EXAMPLES = 5, 4, 11
WIDTH = DIM * (DIM + 1) // 2
READ_OUT = Model(init=lambda key: jnp.zeros((DIM, DIM)), estimate=lambda params: params)
STEP = jnp.zeros((), jnp.int32)


@functools.cache
def world() -> World:
    return jax.jit(worlds.two_point(dim=DIM, invariant_rank=2, spurious_rank=2, mean=1.0, spread=2.0))(
        jax.random.key(0)
    )


@functools.cache
def estimate() -> np.ndarray:
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(DIM, DIM))
    return np.asarray(factor @ factor.T, np.float32)


@functools.cache
def dense_design() -> np.ndarray:
    """Matrices that are not symmetric, [E, n, d, d]."""
    return np.random.default_rng(2).normal(size=(ENVIRONMENTS, EXAMPLES, DIM, DIM)).astype(np.float32)


def signals() -> np.ndarray:
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), world())
    shared = w.invariant_basis * w.invariant_spectrum @ w.invariant_basis.T
    return shared + w.spurious_basis @ w.spurious_cores @ w.spurious_basis.T


def gradient(
    measurement: Measurement, environments: list[int], counts: Any, *, key: int = 0, point: Any = None, data: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """G [d, d] and the loss []."""
    data = measurement.init(jax.random.key(9), world()) if data is None else data
    batch = Batch(jnp.asarray(environments), jnp.asarray(counts))
    found, loss = measurement.gradient(
        jax.random.key(key), STEP, data, READ_OUT, jnp.asarray(estimate() if point is None else point), world(), batch
    )
    return 2 * np.asarray(found), np.asarray(loss)


def definition(
    dense: np.ndarray, labels: np.ndarray, weights: np.ndarray, size: float, point: Any = None
) -> tuple[np.ndarray, float]:
    """G and loss in double precision, from dense measurements [E, n, d, d], labels and weights [E, n]."""
    point = np.asarray(estimate() if point is None else point, np.float64)
    residual = np.einsum("enij,ij->en", dense.astype(np.float64), point) - labels
    matrix = np.einsum("en,enij->ij", weights * residual, dense) / size
    return (matrix + matrix.T) / 2, (weights * residual**2).sum() / (4 * size)


@functools.cache
def revealed(replacement: bool, largest_batch: int | None) -> Callable[[jax.Array, Batch, World], jax.Array]:
    """How often each example is in the batch of each key, [keys, p], read off a design of unit coordinates.

    Every example has a coordinate of its own; with labels of zero the gradient at an estimate of ones counts them.
    """
    measurement = measurements.fixed_design(design=unit_design(), replacement=replacement, largest_batch=largest_batch)

    def one(key: jax.Array, batch: Batch, world: World) -> jax.Array:
        point, data = designs.unpack(jnp.ones(WIDTH)), jnp.zeros((2, 7))
        found, _ = measurement.gradient(key, STEP, data, READ_OUT, point, world, batch)
        return jnp.round(designs.pack(2 * found) * jnp.sum(batch.counts))

    return jax.jit(jax.vmap(one, (0, None, None)))


def unit_design() -> np.ndarray:
    """Two environments with seven examples each, of which the i-th of all sees the i-th packed coordinate alone."""
    return np.eye(WIDTH, dtype=np.float32)[: 2 * 7].reshape(2, 7, WIDTH)


def keys(number: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), number)


# Packed coordinates


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_packed_inner_products_are_the_dense_ones(dim: int) -> None:
    rng = np.random.default_rng(0)
    measured, other = rng.normal(size=(2, 3, 4, dim, dim)).astype(np.float32)
    symmetric = (other + np.swapaxes(other, -1, -2)) / 2
    packed = designs.pack(jnp.asarray(measured))
    chex.assert_shape(packed, (3, 4, dim * (dim + 1) // 2))
    found = (packed * designs.pack(jnp.asarray(symmetric))).sum(-1)
    np.testing.assert_allclose(found, np.einsum("abij,abij->ab", measured, symmetric), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(designs.unpack(designs.pack(jnp.asarray(symmetric))), symmetric, rtol=1e-6)
    assert packed_dim(packed.shape[-1]) == dim
    assert packed_dim(4) == 0


def test_packed_gaussian_measurements_are_independent_standard_normals() -> None:
    matrices = np.random.default_rng(0).normal(size=(20000, 3, 3)).astype(np.float32)
    packed = np.asarray(designs.pack(jnp.asarray(matrices)), np.float64)
    for column in packed.T:
        assert stats.kstest(column, stats.norm.cdf).pvalue > LEVEL
    # 15 correlations of standard error 1 / sqrt(n): max |z| > 4 once in 1,000 times
    assert np.abs(np.corrcoef(packed.T) - np.eye(6)).max() < 4 / np.sqrt(20000)


# Draws


@jax.jit
def subsets(keys: jax.Array, count: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: draws.subset(key, 5, count))(keys)


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 6])
def test_every_subset_is_equally_likely(count: int) -> None:
    masks = np.asarray(subsets(keys(6000), jnp.int32(count)))
    kept = min(count, 5)
    np.testing.assert_array_equal(masks.sum(1), kept)
    seen = Counter(map(bytes, masks))
    assert len(seen) == [1, 5, 10, 10, 5, 1][kept]
    if len(seen) > 1:
        assert stats.chisquare(list(seen.values())).pvalue > LEVEL


def test_a_subset_of_equal_numbers_is_still_of_its_size(monkeypatch) -> None:
    monkeypatch.setattr(draws, "bits", lambda key, count: jnp.asarray([9, 3, 9, 9, 2**32 - 1, 0, 9], jnp.uint32))
    for count in range(9):
        assert draws.subset(jax.random.key(0), 7, jnp.int32(count)).sum() == min(count, 7)
    np.testing.assert_array_equal(draws.subset(jax.random.key(0), 7, jnp.int32(3)), [1, 1, 0, 0, 0, 1, 0])


# Gradients

BATCHES = [([2], [6]), ([0, 1, 2, 3], [5, 0, 2, 6]), ([3, 0, 1, 2], [5, 0, 2, 6]), ([3, 1], [4, 1])]


@pytest.mark.parametrize(("environments", "counts"), BATCHES)
@pytest.mark.parametrize("packed", [True, False])
def test_full_batches_have_the_plain_gradient(environments: list[int], counts: list[int], packed: bool) -> None:
    dense = dense_design()
    design = designs.pack(jnp.asarray(dense)) if packed else dense
    found, loss = gradient(measurements.fixed_design(design=design, full=True), environments, counts)
    weights = np.zeros((ENVIRONMENTS, EXAMPLES))
    weights[environments] = np.array(counts)[:, None] / EXAMPLES
    symmetric = (dense + np.swapaxes(dense, 2, 3)) / 2
    labels = np.einsum("enij,eij->en", symmetric, signals())
    expected, expected_loss = definition(symmetric, labels, weights, sum(counts))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)


@pytest.mark.parametrize(("environments", "counts"), [([1], [4]), ([0, 1], [4, 3]), ([1, 0], [7, 0])])
@pytest.mark.parametrize("largest_batch", [None, 7, 1000])
@pytest.mark.parametrize("replacement", [True, False])
def test_a_batch_holds_the_right_number_of_examples_of_each_environment(
    environments: list[int], counts: list[int], largest_batch: int | None, replacement: bool, monkeypatch
) -> None:
    times = batches(environments, counts, largest_batch, replacement, monkeypatch, number=4000)
    asked = np.zeros(2)
    asked[environments] = counts
    np.testing.assert_array_equal(times.sum(2), np.broadcast_to(asked, (4000, 2)))
    assert (times.max() > 1) == replacement, "an example is in a batch twice, or never"
    # each of the examples alike: means of counts, whose variance is known in both cases; 14 z-scores
    share = asked / 7
    variance = share * (1 - 1 / 7) if replacement else share * (1 - share)
    error = np.sqrt(np.maximum(variance, 1e-12) / 4000)[:, None]
    assert (np.abs(times.mean(0) - share[:, None]) <= 4.2 * error).all()  # by chance in 4e-4 of all cases
    # and no pair of examples more often than others: the covariance of two examples of one environment
    if len(environments) == 1 and counts[0] < 7:
        pair = np.cov(times[:, 1, 0], times[:, 1, 1])[0, 1]
        expected = -share[1] / 7 if replacement else -share[1] * (1 - share[1]) / 6
        assert abs(pair - expected) < 4 * variance[1] / np.sqrt(4000)


def batches(environments, counts, largest_batch, replacement, monkeypatch, *, number: int) -> np.ndarray:
    """How often each example is in each of so many batches, [number, 2, 7], also where rows are gathered."""
    if largest_batch == 7:  # gathered, though that would not pay here
        monkeypatch.setattr(designs, "GATHERED", 1)
    batch = Batch(jnp.asarray(environments), jnp.asarray(counts))
    times = revealed(replacement, largest_batch)(keys(4000), batch, world())
    return np.asarray(times)[:number, : 2 * 7].reshape(-1, 2, 7)


def test_without_replacement_a_promised_size_changes_no_draw(monkeypatch) -> None:
    whole = batches([0, 1], [4, 3], None, False, monkeypatch, number=50)
    np.testing.assert_array_equal(batches([0, 1], [4, 3], 7, False, monkeypatch, number=50), whole)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("largest_batch", [None, 7])
def test_mini_batches_are_unbiased_given_the_design(replacement: bool, largest_batch: int | None, monkeypatch) -> None:
    monkeypatch.setattr(designs, "GATHERED", 1)
    measurement = measurements.fixed_design(
        design=dense_design(), noise=0.5, replacement=replacement, largest_batch=largest_batch
    )
    full = measurements.fixed_design(design=dense_design(), noise=0.5, full=True)
    data = measurement.init(jax.random.key(9), world())
    batch = Batch(jnp.array([2, 0]), jnp.array([4, 3]))

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        found, loss = measurement.gradient(key, STEP, data, READ_OUT, jnp.asarray(estimate()), world(), batch)
        return designs.pack(2 * found), loss

    found = np.column_stack(jax.jit(jax.vmap(one))(keys(4000))).astype(np.float64)
    matrix, loss = gradient(full, [2, 0], [4, 3])
    expected = np.append(designs.pack(jnp.asarray(matrix)), loss)
    z = (found.mean(0) - expected) / (found.std(0) / np.sqrt(len(found)))
    assert np.abs(z).max() < 4.2  # 16 z-scores: by chance in 4e-4 of all cases
    assert (found.std(0) > 0.01).all(), "nothing is random"


def test_the_label_noise_is_drawn_once() -> None:
    def labels(noise: float, seed: int = 9) -> np.ndarray:
        measurement = measurements.fixed_design(design=dense_design(), noise=noise)
        return np.asarray(measurement.init(jax.random.key(seed), world()))

    unit = (labels(2.0) - labels(0.0)) / 2
    np.testing.assert_allclose(labels(1.0) - labels(0.0), unit, rtol=1e-4, atol=1e-5)
    assert np.abs(unit - (labels(2.0, 8) - labels(0.0, 8)) / 2).max() > 0.1
    many = measurements.fixed_design(num_examples=4000, noise=1.0)
    few = measurements.fixed_design(num_examples=4000)
    noise = many.init(jax.random.key(0), world())[1] - few.init(jax.random.key(0), world())[1]
    assert stats.kstest(np.asarray(noise).ravel(), stats.norm.cdf).pvalue > LEVEL
    # Full batches have no other randomness: a step is the same whatever its key is.
    full = measurements.fixed_design(design=dense_design(), noise=2.0, full=True)
    for one, other in zip(gradient(full, [1], [3], key=0), gradient(full, [1], [3], key=1), strict=True):
        np.testing.assert_array_equal(one, other)
    expected, loss = definition(
        dense_design(), labels(2.0), np.eye(ENVIRONMENTS)[1][:, None] / EXAMPLES * np.ones(EXAMPLES), 1
    )
    found = gradient(full, [1], [3])
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1], loss, rtol=1e-4)


def test_a_run_draws_its_own_design_and_a_shared_one_is_the_same_in_all() -> None:
    own = measurements.fixed_design(num_examples=EXAMPLES)
    first, second = (own.init(jax.random.key(seed), world())[0] for seed in (0, 1))
    chex.assert_shape(first, (ENVIRONMENTS, EXAMPLES, WIDTH))
    assert np.abs(np.asarray(first - second)).max() > 0.1
    shared = designs.shared_design(jax.random.key(0), dim=DIM, num_environments=ENVIRONMENTS, num_examples=EXAMPLES)
    assert stats.kstest(np.asarray(shared).ravel(), stats.norm.cdf).pvalue > LEVEL
    measurement = measurements.fixed_design(design=shared, full=True)
    labels = [measurement.init(jax.random.key(seed), world()) for seed in (0, 1)]
    np.testing.assert_array_equal(*labels)
    # a run's own design is the one that its key gives
    again = designs.shared_design(
        jax.random.split(jax.random.key(0))[0], dim=DIM, num_environments=ENVIRONMENTS, num_examples=EXAMPLES
    )
    np.testing.assert_array_equal(first, again)


def test_large_data_sets_are_the_population() -> None:
    found, loss = gradient(measurements.fixed_design(num_examples=100_000, full=True), [0, 1, 2, 3], [1, 2, 3, 4])
    population, mean_loss = gradient(measurements.population(), [0, 1, 2, 3], [1, 2, 3, 4])
    norm = np.sqrt(4 * mean_loss)  # of the residuals: entries of G have a deviation of at most |R| sqrt(2 / n)
    assert np.abs(found - population).max() < 5 * norm * np.sqrt(2 / 100_000)
    assert abs(loss / mean_loss - 1) < 5 * np.sqrt(2 / 100_000) * 2


@pytest.mark.parametrize("options", [{"full": True}, {}, {"replacement": True}, {"largest_batch": 2}])
def test_without_residuals_or_examples_there_is_no_gradient_and_no_nan(options: dict[str, Any]) -> None:
    measurement = measurements.fixed_design(design=dense_design(), **options)
    nature = world()._replace(spurious_cores=0 * world().spurious_cores)
    data = measurement.init(jax.random.key(0), nature)
    zero, loss = gradient(measurement, [0, 1, 2, 3], [0, 0, 2, 0], point=nature.invariant, data=data)
    np.testing.assert_allclose(zero, 0, atol=1e-4)
    np.testing.assert_allclose(loss, 0, atol=1e-8)
    chex.assert_tree_all_finite(gradient(measurement, [3, 1], [0, 2]))


def test_impossible_batches_are_refused_or_not_finite() -> None:
    whole = measurements.fixed_design(design=dense_design())
    promised = measurements.fixed_design(design=dense_design(), largest_batch=2, replacement=True)
    for measurement, allowed, counts in ((whole, EXAMPLES, EXAMPLES + 1), (promised, 2, 3)):
        with pytest.raises(ValueError, match=f"counts must sum to at most {allowed}"):
            gradient(measurement, [1], [counts])
        traced = jax.jit(lambda counts, measurement=measurement: measurement.gradient(
            jax.random.key(0), STEP, measurement.init(jax.random.key(9), world()), READ_OUT, jnp.asarray(estimate()),
            world(), Batch(jnp.array([1]), counts[None]),
        ))  # fmt: skip
        assert not np.isfinite(traced(jnp.int32(counts))[1])
        chex.assert_tree_all_finite(traced(jnp.int32(counts - 1)))


# Many runs


def one_run(key: jax.Array, measurement: Measurement, sampler: str = "hetero", batch_size: Any = 3) -> Any:
    algorithm = sgd(
        world=worlds.two_point(dim=DIM, invariant_rank=2, spurious_rank=2, mean=1.0, spread=2.0),
        sampler=getattr(samplers, sampler)(batch_size=batch_size),
        measurement=measurement,
        model=models.factored(dim=DIM, init_scale=0.3),
        optimizer=optax.sgd(0.02),
    )
    return run(key, algorithm=algorithm, metrics=[metrics.invariant_error, metrics.batch_loss], num_steps=12).metrics


KINDS: dict[str, dict[str, Any]] = {
    "full": {"full": True},
    "without replacement": {},
    "with replacement": {"replacement": True},
    "gathered": {"largest_batch": 3},
    "gathered with replacement": {"largest_batch": 3, "replacement": True},
}


# Every kind of batch, with one environment and with all of them, on a shared design and on each run's own.
SLOW = [
    ("full", "stratified", True),
    ("without replacement", "hetero", True),
    ("with replacement", "hetero", True),
    ("gathered", "hetero", False),
    ("gathered with replacement", "stratified", True),
]
CASES = [
    ("full", "hetero", True),
    ("without replacement", "stratified", False),
    ("gathered", "hetero", True),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
]


@pytest.mark.parametrize(("kind", "sampler", "shared"), CASES)
def test_many_runs_are_many_single_runs(kind: str, sampler: str, shared: bool, monkeypatch) -> None:
    monkeypatch.setattr(products, "SLAB", 4 * WIDTH)  # slabs of 4, 4 and 3 examples
    monkeypatch.setattr(products, "TOGETHER", 3)
    monkeypatch.setattr(designs, "GATHERED", 1)
    options = {"design": dense_design()} if shared else {"num_examples": EXAMPLES}
    measurement = measurements.fixed_design(noise=0.1, **options, **KINDS[kind])
    one = functools.partial(one_run, measurement=measurement, sampler=sampler)
    seeds = keys(13)
    mapped = jax.jit(jax.vmap(one))
    together = mapped(seeds)
    alone = jax.jit(one)
    for seed in (0, 5, 12):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, seed=seed: leaf[seed], together), alone(seeds[seed]), rtol=1e-4, atol=1e-5
        )
    # a run's bits do not depend on the runs beside it, nor on its place among them
    turned = mapped(seeds[::-1])
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[::-1], turned), together)
    if kind not in ("full", "gathered"):
        return
    # maps within maps
    square = jax.jit(jax.vmap(jax.vmap(one)))(seeds[:12].reshape(3, 4))
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf.reshape(12, *leaf.shape[2:]), square),
        jax.tree.map(lambda leaf: leaf[:12], together), rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_a_run_that_diverges_leaves_the_others_alone() -> None:
    measurement = measurements.fixed_design(design=dense_design(), full=True)

    def one(environment: jax.Array, point: jax.Array) -> Any:
        data = measurement.init(jax.random.key(0), world())
        batch = Batch(environment[None], jnp.array([3]))
        return measurement.gradient(jax.random.key(0), STEP, data, READ_OUT, point, world(), batch)

    environments = jnp.array([0, 1, 0, 3, 0])
    points = jnp.stack([jnp.asarray(estimate())] * 5)
    good = jax.vmap(one)(environments, points)
    bad = jax.vmap(one)(environments, points.at[2].set(jnp.nan))
    kept = np.array([0, 1, 3, 4])
    chex.assert_trees_all_equal(*(jax.tree.map(lambda leaf: leaf[kept], tree) for tree in (good, bad)))


def products_in(jaxpr: Any) -> list[tuple[tuple[int, ...], ...]]:
    """Shapes of the operands of every product of two matrices."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(tuple(variable.aval.shape for variable in equation.invars))
        for leaf in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, jex_core.Jaxpr | jex_core.ClosedJaxpr)
        ):
            if isinstance(leaf, jex_core.ClosedJaxpr):
                found += products_in(leaf.jaxpr)
            elif isinstance(leaf, jex_core.Jaxpr):
                found += products_in(leaf)
    return found


def test_runs_that_share_a_design_share_its_products() -> None:
    measurement = measurements.fixed_design(design=dense_design(), full=True)
    shapes = products_in(jax.make_jaxpr(jax.vmap(lambda key: one_run(key, measurement, "stratified")))(keys(6)).jaxpr)
    rows = ENVIRONMENTS * EXAMPLES
    with_design = [shape for shape in shapes if (rows, WIDTH) in shape]
    assert sorted(map(sorted, with_design)) == [[(6, WIDTH), (rows, WIDTH)], [(6, rows), (rows, WIDTH)]]
    # with one environment a batch, groups of runs do: 6 runs at a time, never 6 copies of the data
    shapes = products_in(jax.make_jaxpr(jax.vmap(lambda key: one_run(key, measurement)))(keys(6)).jaxpr)
    with_design = [shape for shape in shapes if (EXAMPLES, WIDTH) in shape or (WIDTH, EXAMPLES) in shape]
    assert sorted(map(sorted, with_design)) == [[(6, EXAMPLES), (EXAMPLES, WIDTH)], [(6, WIDTH), (WIDTH, EXAMPLES)]]
    assert not [
        shape for shape in shapes for operand in shape if operand[:1] == (6,) and operand[1:] == (EXAMPLES, WIDTH)
    ]


# Restricted isometry


@pytest.mark.parametrize("dim", [2, 3])
def test_the_isometry_constant_is_that_of_a_grid(dim: int) -> None:
    design = np.random.default_rng(dim).normal(size=(2, 12, dim, dim)).astype(np.float32)
    found = designs.restricted_isometry(jax.random.key(0), design, rank=1)
    angle = np.linspace(0, np.pi, 721)
    if dim == 2:
        vectors = np.stack([np.cos(angle), np.sin(angle)], 1)
    else:
        polar, turn = (grid.ravel() for grid in np.meshgrid(angle, np.linspace(0, 2 * np.pi, 1441)))
        vectors = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], 1)
    for environment, rows in zip(found, design, strict=True):
        inner = np.einsum("kij,vi,vj->vk", rows, vectors, vectors, optimize=True)
        expected = np.abs((inner**2).mean(1) - 1).max()
        assert environment <= expected * (1 + 1e-3), "a lower bound"
        np.testing.assert_allclose(environment, expected, rtol=1e-3)


def test_the_isometry_constant_of_full_rank_is_an_eigenvalue() -> None:
    design = np.random.default_rng(0).normal(size=(1, 60, 3, 3)).astype(np.float32)
    packed = np.asarray(designs.pack(jnp.asarray(design)), np.float64)[0]
    expected = np.abs(np.linalg.eigvalsh(packed.T @ packed / 60) - 1).max()
    found = designs.restricted_isometry(jax.random.key(0), design, rank=3, iterations=300)
    np.testing.assert_allclose(found, [expected], rtol=1e-3)


def test_the_isometry_constant_grows_with_the_rank_and_falls_with_the_root_of_the_examples() -> None:
    def constant(rank: int, num_examples: int) -> float:
        design = designs.shared_design(jax.random.key(1), dim=8, num_environments=3, num_examples=num_examples)
        return float(designs.restricted_isometry(jax.random.key(0), design, rank=rank, starts=6).mean())

    ones, fours, many = constant(1, 400), constant(4, 400), constant(1, 6400)
    assert ones < fours
    assert ones / many == pytest.approx(4, rel=0.3)  # exactly 4 for n -> infinity


# Bad input

PACKED = np.ones((2, 3, 6), np.float32)
TABLE = [
    (lambda: measurements.fixed_design(), "num_examples or design must be given"),
    (lambda: measurements.fixed_design(num_examples=3, design=PACKED), "num_examples or design must be given"),
    (lambda: measurements.fixed_design(num_examples=0), "num_examples must be a whole number, at least 1"),
    (lambda: measurements.fixed_design(num_examples=3, noise=-1.0), "noise must be a finite number at least 0"),
    (lambda: measurements.fixed_design(num_examples=3, largest_batch=0), "largest_batch must be a whole number"),
    (lambda: measurements.fixed_design(num_examples=3, full=True, replacement=True), "replacement must be False"),
    (lambda: measurements.fixed_design(num_examples=3, full=True, largest_batch=2), "largest_batch must be None"),
    (lambda: measurements.fixed_design(design=PACKED[:, :, :4]), r"design must have shape .* got \[2, 3, 4\]"),
    (lambda: measurements.fixed_design(design=np.ones((2, 3, 3, 2))), "design must have shape"),
    (lambda: measurements.fixed_design(design=PACKED[:, :0]), "design must have shape"),
    (lambda: measurements.fixed_design(design=PACKED * np.nan), "design must be a finite number"),
    (lambda: measurements.fixed_design(design=PACKED).init(jax.random.key(0), world()), "design must .* 4 environments"),
    (lambda: one_run(jax.random.key(0), measurements.fixed_design(num_examples=2)), "batch_size must be at most 2"),
    (
        lambda: one_run(jax.random.key(0), measurements.fixed_design(num_examples=9, largest_batch=2), "pooled"),
        "batch_size must be at most 2",
    ),
    (lambda: designs.shared_design(jax.random.key(0), dim=0, num_environments=1, num_examples=1), "dim must be"),
    (lambda: designs.restricted_isometry(jax.random.key(0), PACKED, rank=4), "rank must be .* at most 3"),
    (lambda: designs.restricted_isometry(jax.random.key(0), PACKED, rank=1, starts=0), "starts must be"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), TABLE, ids=[message[:40] for _, message in TABLE])
def test_one_clear_value_error(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
