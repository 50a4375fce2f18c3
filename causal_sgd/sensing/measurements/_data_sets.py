"""The data sets of `fixed_design`: their examples and labels, and which of them feed a step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements import designs
from causal_sgd.sensing.measurements._algebra import Designs, owners
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key

Data = Array | tuple[Array, Array]  # labels [E, n], or a run's own design [E, n, p] and labels
# Folded into the key of a step for the fresh noise; the choice of the batch folds in environments.
FRESH = 2**31 - 1


class Selection(NamedTuple):
    """The rule by which an environment contributes m_e of its n examples to a batch.

    What it contributes depends on m_e and on nothing else of the batch, and for smaller m_e it is a
    part of the same examples (except with replacement and without a largest batch). Where there is
    a largest batch, `weights` and `rows` describe the same draw for the same key.
    """

    size: int  # n, examples of each environment
    full: bool  # all of them, weighted by the share of the environment; nothing is drawn
    replacement: bool
    largest_batch: int | None  # M, a promise that no batch has more examples

    def capacity(self, environments: int) -> int | None:
        """The most examples in a batch from B environments; None for no limit."""
        limits = [] if self.full or self.replacement else [self.size * environments]
        if self.largest_batch is not None:
            limits.append(self.largest_batch)
        return min(limits, default=None)

    def is_exceeded(self, counts: Array) -> Array:
        """Whether a batch has more examples than the data set or the promise allows; [].

        Args:
            counts: m_e, [B].
        """
        result = jnp.zeros((), bool)
        if self.largest_batch is not None:
            result |= jnp.sum(counts) > self.largest_batch
        if not self.full and not self.replacement:
            result |= jnp.any(counts > self.size)
        return result

    def weights(self, key: Key, batch: Batch) -> Array:
        """How often each example is in the batch, [B, n]; m_e / n for full batches.

        In a valid batch the weights of an environment sum to m_e.

        Args:
            key: of the step.
            batch: the environments and their m_e, [B].
        """
        counts = batch.counts
        if self.full:
            shares = counts.astype(jnp.result_type(float)) / self.size
            return jnp.broadcast_to(shares[:, None], (counts.shape[0], self.size))
        if self.replacement and self.largest_batch is not None:
            rows, owner, valid = self.rows(key, batch)
            return jnp.zeros((counts.shape[0], self.size)).at[owner, rows].add(valid)
        keys = random.fold_in(key, batch.environments)
        if self.replacement:
            uniform = jnp.full(self.size, 1 / self.size)

            def multinomial(key: Key, count: Array) -> Array:
                return random.multinomial(key, count.astype(uniform.dtype), uniform)

            return jax.vmap(multinomial)(keys, counts)
        return jax.vmap(lambda k, c: random.subset(k, self.size, c))(keys, counts)

    def rows(self, key: Key, batch: Batch) -> tuple[Array, Array, Array]:
        """The examples of a batch, padded to the promised largest size M.

        Args:
            key: of the step.
            batch: the environments and their m_e, [B].

        Returns:
            For each place of the batch, the index of its example within the environment [M], the
            position of that environment within the batch [M], and whether the place is used [M].
        """
        largest = self.largest_batch
        assert largest is not None
        environments, counts = batch
        owner, valid = owners(counts, 0, largest)
        # Padding may count past the end; it reads a valid index, and `valid` discards it.
        within = jnp.arange(largest, dtype=counts.dtype) - (jnp.cumsum(counts) - counts)[owner]
        keys = random.fold_in(key, environments)
        if self.replacement:
            return random.integers(keys[owner], within, self.size), owner, valid
        masks = jax.vmap(lambda k, c: random.subset(k, self.size, c))(keys, counts)
        # top_k keeps ties in order, so the members of each subset come first.
        chosen = jax.lax.top_k(masks.astype(jnp.float32), min(largest, self.size))[1]
        return chosen[owner, jnp.minimum(within, chosen.shape[1] - 1)], owner, valid


class DataSet(NamedTuple):
    """The data sets of all environments: E times n examples of p coordinates."""

    shared: Designs | None  # the design of all runs, a constant; None where each run draws its own
    shape: tuple[int, ...] | None  # (E, n, p) of the shared design
    selection: Selection  # of the examples of a step
    gathers: bool  # whether the rows of a batch are gathered
    symmetric: bool  # p = d (d + 1) / 2, the symmetric parts; otherwise p = d^2
    noise: float | Array  # sigma_y, in the labels of the data
    fresh_noise: float | Array  # standard deviation of the noise of a step

    def flatten(self, matrices: Array) -> Array:
        """Coordinates [..., p] of matrices [..., d, d]; <X, M> is a product of coordinates."""
        return designs.pack(matrices) if self.symmetric else designs.flatten(matrices)

    def restore(self, coordinates: Array) -> Array:
        """The matrices [..., d, d] with coordinates [..., p]."""
        return designs.unpack(coordinates) if self.symmetric else designs.square(coordinates)

    def draw(self, key: Key, world: World) -> Data:
        """The data of a run: labels y_i = <X_i, S_e> + noise N(0, 1), and X if it is its own."""
        # The same key for the noise whether the design is given or drawn.
        design_key, noise_key = random.fold_in(key, jnp.arange(2))
        if self.shared is None:
            own = _draw_design(design_key, self.selection.size, self.symmetric, world)
            return own, _labels(self, noise_key, own, world)
        assert self.shape is not None
        _check_shape(self.shape, self.symmetric, world)
        return _labels(self, noise_key, self.shared, world)

    def design_and_labels(self, data: Data) -> tuple[Designs, Array]:
        """The design, [E, n, p] or E arrays [n, p], and the labels [E, n] that the data hold."""
        if isinstance(data, tuple):
            return data
        assert self.shared is not None
        return self.shared, data

    def at_step(self, key: Key, data: Data) -> tuple[Designs, Array]:
        """The design and its labels in one step, with fresh noise."""
        measured, labels = self.design_and_labels(data)
        if not checks.is_zero(self.fresh_noise):
            numbers = random.normals(random.fold_in(key, FRESH), labels.shape, labels.dtype)
            labels = labels + self.fresh_noise * numbers
        return measured, labels

    def require_symmetry(self, model: MatrixModel) -> None:
        """Raise ValueError for an estimate with more entries than the data set measures."""
        if self.symmetric and not model.symmetric:
            raise ValueError(
                "model must have a symmetric estimate for a fixed_design that holds the symmetric "
                "parts of the measurements, got one that is not; pass symmetric=False to keep them "
                "whole"
            )


def _check_shape(shape: tuple[int, ...], symmetric: bool, world: World) -> None:
    """Refuse a given design (E, n, p) that does not fit the world."""
    environments, dim = world.probabilities.shape[0], world.invariant_basis.shape[0]
    width = dim * (dim + 1) // 2 if symmetric else dim * dim
    if shape != (environments, shape[1], width):
        packed = f"[{environments}, n, {width}] or " if symmetric else ""
        raise ValueError(
            f"design must have shape {packed}[{environments}, n, {dim}, {dim}] in a world "
            f"of {environments} environments and dim {dim}, got coordinates {list(shape)}"
        )


def _draw_design(key: Key, size: int, symmetric: bool, world: World) -> Array:
    """A run's own design with the environments, the dimension and the precision of its world."""
    environments = world.probabilities.shape[0]
    return designs.shared_design(
        key,
        dim=world.invariant_basis.shape[0],
        num_environments=environments,
        num_examples=size,
        symmetric=symmetric,
        dtype=world.invariant_basis.dtype,
    ).reshape(environments, size, -1)


def _labels(data_set: DataSet, key: Key, measured: Designs, world: World) -> Array:
    """The labels [E, n], with their noise, of a design."""
    signals = data_set.flatten(
        world.invariant[None] + jax.vmap(world.spurious)(world.spurious_cores)
    )
    if isinstance(measured, tuple):
        pairs = zip(measured, signals, strict=True)
        clean = jnp.stack([linalg.product(rows, signal) for rows, signal in pairs])
    else:
        clean = jnp.einsum("enp,ep->en", measured, signals, precision="highest")
    if checks.is_zero(data_set.noise):
        return clean
    numbers = random.normals(key, clean.shape, clean.dtype)
    return clean + data_set.noise * numbers
