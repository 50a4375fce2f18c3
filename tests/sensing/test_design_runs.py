"""Many runs on data sets equal single runs; runs on one data set share its products."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core as jex_core

from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sensing.measurements import _fixed, _products, designs
from causal_sgd.sweeps._programs import CPU_OPTIONS, Program
from causal_sgd.training import run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Array, Batch, Measurement, Snapshot
from support.cases import few
from support.designs import (
    DIM,
    ENVIRONMENTS,
    EXAMPLES,
    READ_OUT,
    STEP,
    WIDTH,
    dense_design,
    estimate,
    full,
    keys,
    world,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def params(snapshot: Snapshot) -> Array:
    return snapshot.params


def one_run(
    key: jax.Array, measurement: Measurement, sampler: str = "hetero", batch_size: Any = 3
) -> Any:
    algorithm = sgd(
        world=worlds.two_point(
            dim=DIM, invariant_rank=2, spurious_rank=2, mean=1.0, spread=2.0, basis="canonical"
        ),
        sampler=getattr(samplers, sampler)(batch_size=batch_size),
        measurement=measurement,
        model=models.factored(dim=DIM, init="gaussian", init_scale=0.3),
        optimizer=optax.sgd(0.02),
    )
    return run(key, algorithm=algorithm, metrics=[params, metrics.batch_loss], num_steps=12).metrics


KINDS: dict[str, dict[str, Any]] = {
    "full": {"full": True},
    "without replacement": {},
    "with replacement": {"replacement": True},
    "gathered": {"largest_batch": 3},
    "gathered with replacement": {"largest_batch": 3, "replacement": True},
}


# Every kind of batch, with one environment and with all, on a shared design and on each run's own.
CASES = [
    ("full", "hetero", True),
    ("without replacement", "stratified", False),
    ("gathered with replacement", "stratified", True),
    ("full", "stratified", True),
    ("without replacement", "hetero", True),
    ("with replacement", "hetero", True),
    ("gathered", "hetero", False),
    ("gathered", "hetero", True),
]


@pytest.mark.parametrize(("kind", "sampler", "shared"), few(CASES, (), CASES[:3]))
def test_many_runs_are_many_single_runs(kind: str, sampler: str, shared: bool, monkeypatch) -> None:
    monkeypatch.setattr(_products, "CACHED", 4 * WIDTH)  # slabs of 4, 4 and 3 examples
    monkeypatch.setattr(_products, "TOGETHER", 3)
    monkeypatch.setattr(_fixed, "GATHERED", 1)
    options = {"design": dense_design()} if shared else {"num_examples": EXAMPLES}
    measurement = measurements.fixed_design(noise=0.1, **options, **KINDS[kind])
    one = functools.partial(one_run, measurement=measurement, sampler=sampler)
    seeds = keys(13)
    # As sweeps compile it: with narrower vectors XLA rounds the last of an odd number of runs
    # differently.
    mapped = jax.jit(jax.vmap(one)).lower(seeds).compile(compiler_options=CPU_OPTIONS)
    together = mapped(seeds)
    alone = jax.jit(one)
    for seed in (0, 5, 12):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, seed=seed: leaf[seed], together),
            alone(seeds[seed]),
            rtol=1e-4,
            atol=1e-5,
        )
    # a run's bits do not depend on the runs beside it, nor on its place among them
    turned = mapped(seeds[::-1])
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[::-1], turned), together)
    if kind != "gathered":
        return
    # maps within maps
    square = jax.jit(jax.vmap(jax.vmap(one)))(seeds[:12].reshape(3, 4))
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf.reshape(12, *leaf.shape[2:]), square),
        jax.tree.map(lambda leaf: leaf[:12], together),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["hetero", "stratified"])
def test_data_sets_side_by_side_in_one_array_or_made_in_the_run_are_the_same(
    sampler: str, monkeypatch
) -> None:
    def together(make: Any) -> Any:
        def one(key: jax.Array) -> Any:
            measurement = measurements.fixed_design(design=make(key), noise=0.1, full=True)
            return one_run(key, measurement, sampler)

        return jax.jit(jax.vmap(one))(keys(5))

    given = jnp.asarray(dense_design(), jnp.float32)
    apart = together(lambda key: given)
    # another array for each run, as far as the compiler knows
    made = together(lambda key: given + 0 * jax.random.uniform(key))
    monkeypatch.setattr(_fixed, "SEPARATE", 0)
    stacked = together(lambda key: given)
    assert np.std(np.asarray(apart["params"])) > 0.01
    for other in (made, stacked):
        chex.assert_trees_all_close(other, apart, rtol=1e-4, atol=1e-5)


def test_a_run_that_diverges_leaves_the_others_alone() -> None:
    measurement = full()

    @jax.jit
    @jax.vmap
    def many(environment: jax.Array, point: jax.Array) -> Any:
        data = measurement.init(jax.random.key(0), world())
        batch = Batch(environment[None], jnp.array([3]))
        return measurement.gradient(jax.random.key(0), STEP, data, READ_OUT, point, world(), batch)

    environments = jnp.array([0, 1, 0, 3, 0])
    points = jnp.stack([jnp.asarray(estimate())] * 5)
    good = many(environments, points)
    bad = many(environments, points.at[2].set(jnp.nan))
    kept = np.array([0, 1, 3, 4])
    chex.assert_trees_all_equal(
        *(jax.tree.map(lambda leaf: leaf[kept], tree) for tree in (good, bad))
    )


def products_in(jaxpr: Any) -> list[tuple[tuple[int, ...], ...]]:
    """Shapes of the operands of every product of two matrices."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(tuple(variable.aval.shape for variable in equation.invars))
        for leaf in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, jex_core.Jaxpr | jex_core.ClosedJaxpr),
        ):
            if isinstance(leaf, jex_core.ClosedJaxpr):
                found += products_in(leaf.jaxpr)
            elif isinstance(leaf, jex_core.Jaxpr):
                found += products_in(leaf)
    return found


def test_runs_that_share_a_design_share_its_products() -> None:
    measurement = full(noise=0.1)
    shapes = products_in(
        jax.make_jaxpr(jax.vmap(lambda key: one_run(key, measurement, "stratified")))(keys(6)).jaxpr
    )
    with_design = [
        shape for shape in shapes if (EXAMPLES, WIDTH) in shape or (WIDTH, EXAMPLES) in shape
    ]
    there, back = ((6, WIDTH), (WIDTH, EXAMPLES)), ((6, EXAMPLES), (EXAMPLES, WIDTH))
    assert sorted(shape for shape in with_design if shape[0][0] == 6) == sorted(
        [there, back] * ENVIRONMENTS
    )
    # with one environment a batch, groups of runs do: 6 runs at a time, never 6 copies of the data
    shapes = products_in(
        jax.make_jaxpr(jax.vmap(lambda key: one_run(key, measurement)))(keys(6)).jaxpr
    )
    with_design = [
        shape for shape in shapes if (EXAMPLES, WIDTH) in shape or (WIDTH, EXAMPLES) in shape
    ]
    assert sorted(shape for shape in with_design if shape[0][0] == 6) == sorted(
        [there, back] * ENVIRONMENTS
    )
    assert not [
        shape
        for shape in shapes
        for operand in shape
        if operand[:1] == (6,) and operand[1:] == (EXAMPLES, WIDTH)
    ]


@pytest.mark.parametrize(
    ("options", "sampler"),
    [({"num_examples": 2}, "hetero"), ({"num_examples": 9, "largest_batch": 2}, "pooled")],
)
def test_batches_that_are_too_large_are_refused_before_anything_runs(
    options: dict[str, Any], sampler: str
) -> None:
    measurement = measurements.fixed_design(**options)
    with pytest.raises(ValueError, match="batch_size must be at most 2"):
        jax.eval_shape(
            functools.partial(one_run, measurement=measurement, sampler=sampler), jax.random.key(0)
        )


@pytest.mark.parametrize("largest_batch", [None, 16])
def test_the_tile_is_that_of_what_a_run_computes_wherever_the_design_is_given(
    largest_batch: int | None,
) -> None:
    large = designs.shared_design(jax.random.key(0), dim=20, num_environments=8, num_examples=400)
    options: dict[str, Any] = (
        {"full": True} if largest_batch is None else {"largest_batch": largest_batch}
    )
    outside = measurements.fixed_design(design=large, **options)

    def cell(key: jax.Array, measurement: Measurement) -> Any:
        algorithm = sgd(
            world=worlds.two_point(dim=20, invariant_rank=2, spurious_rank=3, mean=1.0, spread=2.0),
            sampler=samplers.hetero(batch_size=largest_batch or 400),
            measurement=measurement,
            model=models.factored(dim=20),
            optimizer=optax.sgd(0.02),
        )
        return run(key, algorithm=algorithm, metrics=[metrics.spurious_signal], num_steps=2)

    def inside(key: jax.Array) -> Any:
        return cell(key, measurements.fixed_design(design=large, **options))

    given = Program.make(lambda key: cell(key, outside), (), [], jax.random.key(0))
    made = Program.make(inside, (), [], jax.random.key(0))
    assert made.run_bytes == given.run_bytes < large.nbytes / 4
    # rows that a run takes for itself are no reason for more runs side by side
    assert made.shared_bytes == given.shared_bytes
    assert (made.shared_bytes >= large.nbytes) == (largest_batch is None)
