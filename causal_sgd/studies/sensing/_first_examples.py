"""Finite data sets whose number of examples is traced, and the cells of `sample-threshold`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_sgd.sensing.models import MatrixModel
    from causal_sgd.sensing.worlds import World
    from causal_sgd.studies._cells import Cell
    from causal_sgd.types import Array, Batch, Key, Measurement, Params, Trace

__all__ = ["contradiction_cell", "first_examples", "recovery_cell"]

MOST_RANK = 3
RATE = 0.5  # of the learning rate that the curvature allows


def first_examples(num_examples: Array, most: int, feedback: float | Array = 1.0) -> Measurement:
    """The first n of `most` Gaussian examples of every environment, all in every step, no noise.

    The loss of an environment is sum_i r_i^2 / (4 n), as for `fixed_design` in full batches. A
    batch holds one environment. n is traced: one program serves a whole axis of n.

    Args:
        num_examples: n, at most `most`.
        most: examples that are drawn.
        feedback: factor of the estimate in the residuals. At 0 gradients are those near zero, so
            that U grows by powers of I + eta A*A(A).
    """
    import jax
    import jax.numpy as jnp

    from causal_sgd import linalg, random
    from causal_sgd.sensing.measurements import designs
    from causal_sgd.types import Measurement

    def init(key: Key, world: World) -> tuple[Array, Array]:
        signals = world.invariant[None] + jax.vmap(world.spurious)(world.spurious_cores)
        packed = designs.pack(signals)
        shape = packed.shape[0], most, packed.shape[1]
        rows = random.normals(key, shape, packed.dtype)
        return rows, jnp.einsum("enp,ep->en", rows, packed, precision="highest")

    def gradient(
        key: Key,
        step: Array,
        data: tuple[Array, Array],
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        # A choice among one is none; a gather would copy the data of every run in every step.
        only = data[0].shape[0] == 1
        index = 0 if only else batch.environments[0]
        rows, labels = (leaf[index] for leaf in data)
        counted = jnp.arange(most) < num_examples

        def loss(params: Params) -> Array:
            estimate = designs.pack(model.estimate(params))
            predictions = linalg.product(rows, estimate)
            # The derivative of r^2 / 4 with what is fed back of r held fixed.
            errors = jax.lax.stop_gradient(feedback * predictions - labels)
            terms = jnp.where(counted, errors * (predictions - labels), 0)
            return jnp.sum(terms) / (2 * num_examples)

        value, slope = jax.value_and_grad(loss)(params)
        return slope, value / 2

    return Measurement(init, gradient, holds_labels=True)


def recovery_cell(
    dim: int, most: int, steps: int, *, depth: int = 2, record_every: int | None = None
) -> Cell:
    """Gradient descent on n measurements of one matrix of rank r with eigenvalues 1.

    The learning rate is that of the population over the squared norm of n Gaussian measurements,
    (1 + sqrt(p / n))^2, which bounds the curvature.

    Args:
        dim: d; the model has k = d columns.
        most: examples that are drawn.
        steps: length of the runs.
        depth: 2 for U U', else the number of factors of a product of symmetric start.
        record_every: steps between frames of singular values; None for the last error alone.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    packed = dim * (dim + 1) / 2

    def cell(
        key: Key,
        *,
        rank: Array,
        num_examples: Array,
        init_scale: Array,
        feedback: float | Array = 1.0,
    ) -> Trace:
        directions = jnp.arange(MOST_RANK) < rank
        learning_rate = RATE / (1 + jnp.sqrt(packed / num_examples)) ** 2
        algorithm = sgd(
            world=worlds.two_point(
                dim=dim,
                invariant_rank=MOST_RANK,
                spurious_rank=0,
                invariant_spectrum=directions.astype(float),
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=first_examples(num_examples, most, feedback),
            model=models.factored(dim=dim, init_scale=init_scale)
            if depth == 2
            else models.deep(dim=dim, depth=depth, init_scale=init_scale),
            optimizer=optax.sgd(learning_rate),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics=[metrics.relative_invariant_error]
            if record_every is None
            else [metrics.singular_values],
            num_steps=steps,
            record_every=record_every,
        )

    return cell


def contradiction_cell(dim: int, environments: int, most: int, steps: int) -> Cell:
    """HeteroSGD on n examples of each of E environments, one of them in every step.

    Half of the environments have the spurious eigenvalue mu + M, half of them mu - M.
    """
    import optax

    from causal_sgd.sensing import metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    def cell(
        key: Key, *, num_examples: Array, learning_rate: Array, mean: Array, spread: Array
    ) -> Trace:
        algorithm = sgd(
            world=worlds.two_point(
                dim=dim,
                invariant_rank=1,
                spurious_rank=1,
                num_environments=environments,
                mean=mean,
                spread=spread,
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=first_examples(num_examples, most),
            model=models.factored(dim=dim, init_scale=1e-3),
            optimizer=optax.sgd(learning_rate),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics=[metrics.relative_invariant_error, metrics.batch_loss],
            num_steps=steps,
            record_every=20,
        )

    return cell
