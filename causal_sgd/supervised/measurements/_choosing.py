"""How the examples of a batch are chosen, and the noise that is added to their labels."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.supervised._moments import MomentData, Rows, used_rows
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Batch, Key

__all__ = ["Choosing"]

NOISE = 2**31 - 1  # folded into the key of a step, beside environments
SLOTS = 2**31 - 2


class Choosing(NamedTuple):
    """How the examples of a batch come about."""

    fresh: int | None
    full: bool
    replacement: bool
    most: int | None = None  # examples of an environment that are gathered; None to weigh all
    label_noise: float | Array = 0.0
    noisy: int | None = None  # examples of an environment that have it; None for all
    slots: int | None = None  # examples of all environments together that are gathered

    def capacity(self, sizes: int | tuple[int, ...] | None, environments: int) -> int | None:
        """The most examples in a batch from B environments; None for no known limit."""
        most = self._most(sizes, environments)
        if self.slots is None or most is None:
            return most if self.slots is None else self.slots
        return min(most, self.slots)

    def _most(self, sizes: int | tuple[int, ...] | None, environments: int) -> int | None:
        """The most examples without a limit on all environments together."""
        gathered = self.fresh if self.most is None else self.most
        if gathered is not None and self.replacement:
            return gathered * environments
        most = sizes if gathered is None else gathered
        if most is None or self.full or self.replacement:
            return None
        largest = (most,) * environments if isinstance(most, int) else sorted(most)[-environments:]
        return sum(largest)

    def rows(
        self, key: Key, data: MomentData, world: SupervisedWorld, batch: Batch
    ) -> tuple[Rows, Array]:
        """Examples of the batch's environments, and how often each is in the batch [B, n].

        With slots these are inputs [1, n, p] of the whole batch, of which each environment uses its
        own.

        Args:
            key: of the step.
            data: the measurement's.
            world: whose examples are drawn, where they are fresh.
            batch: environments and counts [B].
        """
        rows, used = self._clean(key, data, world, batch)
        if checks.is_zero(self.label_noise):
            return rows, used
        keys = random.fold_in(random.fold_in(key, NOISE), batch.environments)
        size, dtype = rows.labels.shape[1], rows.labels.dtype
        noise = jax.vmap(lambda k: random.normals(random.fold_in(k, 0), size, dtype))(keys)
        if self.noisy is not None:
            words = jax.vmap(lambda k: random.bits(random.fold_in(k, 1), size))(keys)
            marked = _largest(jnp.where(used > 0, (words >> 1).astype(jnp.int32), -1), self.noisy)
            noise = jnp.where(marked, noise, 0)
        labels = rows.labels + jnp.asarray(self.label_noise, dtype) * noise
        return rows._replace(labels=labels), used

    def _clean(
        self, key: Key, data: MomentData, world: SupervisedWorld, batch: Batch
    ) -> tuple[Rows, Array]:
        """The examples without noise on their labels."""
        keys = random.held(random.fold_in(key, batch.environments))
        if self.fresh is not None:
            size = self.fresh
            x, y = random.shareable(
                jax.vmap(lambda k, e: world.draw_examples(k, e, size))(keys, batch.environments)
            )
            rows = Rows(x, y, jnp.full(len(batch.counts), size, x.dtype))
            if self.slots is not None:
                owners, offsets, own = _slots(batch, self.slots)
                exceeded = _exceeded(batch, self.slots) | (batch.counts > size)
                if len(batch.counts) > 1 or self.slots > size:  # else they are the first rows
                    taken = owners, jnp.minimum(offsets, size - 1)
                    rows = _of_slots(rows, taken, taken)
                else:
                    full = jnp.full(1, self.slots, x.dtype)
                    rows = Rows(x[:, : self.slots], y[:, : self.slots], full)
                return rows, _poisoned(own.astype(x.dtype), exceeded)
            used = jnp.arange(size)[None] < batch.counts[:, None]
            return rows, _poisoned(used.astype(x.dtype), batch.counts > size)
        assert data.rows is not None
        if self.most is not None:
            return self._gathered(keys, data.rows, batch, self.most)
        if self.slots is not None:
            slots_key = random.fold_in(key, SLOTS)
            return self._slotted(slots_key, keys, data.rows, batch, self.slots)
        rows = _rows_of(data.rows, batch.environments)
        if self.full:
            return rows, used_rows(rows)
        dtype, size = rows.labels.dtype, rows.labels.shape[1]

        def chosen(key: Key, count: Array, among: Array) -> Array:
            if self.replacement:
                shares = (jnp.arange(size) < among).astype(dtype) / among.astype(dtype)
                return random.multinomial(key, count.astype(dtype), shares)
            return random.subset(key, size, count, among).astype(dtype)

        used = jax.vmap(chosen)(keys, batch.counts, rows.counts)
        return rows, used if self.replacement else _poisoned(used, batch.counts > rows.counts)

    def _gathered(self, keys: Key, rows: Rows, batch: Batch, most: int) -> tuple[Rows, Array]:
        """The chosen examples alone, [B, most]."""
        dtype, among = rows.labels.dtype, rows.counts[batch.environments]

        def chosen(key: Key, count: Array, among: Array) -> Array:
            if self.replacement:
                words = random.bits(key, most)
                return (words % jnp.full(most, among.astype(jnp.uint32))).astype(jnp.int32)
            return random.places(key, most, count, among)

        places = jax.vmap(chosen)(keys, batch.counts, among)
        environments = batch.environments[:, None]
        owners = jnp.zeros_like(environments) if len(rows.inputs) == 1 else environments
        taken = Rows(
            rows.inputs[owners, places],
            rows.labels[environments, places],
            jnp.full(len(places), most, dtype),
        )
        used = (jnp.arange(most)[None] < batch.counts[:, None]).astype(dtype)
        exceeded = batch.counts > most
        if not self.replacement:
            exceeded = exceeded | (batch.counts > among)
        return taken, _poisoned(used, exceeded)

    def _slotted(
        self, key: Key, keys: Key, rows: Rows, batch: Batch, slots: int
    ) -> tuple[Rows, Array]:
        """The chosen examples of the whole batch in a row, [1, slots]."""
        owners, offsets, own = _slots(batch, slots)
        environments = batch.environments[owners]
        among = rows.counts[batch.environments]
        exceeded = _exceeded(batch, slots)
        if self.replacement:
            words = random.bits(key, slots)
            places = (words % among[owners].astype(jnp.uint32)).astype(jnp.int32)
        else:
            chosen = jax.vmap(lambda k, c, a: random.places(k, slots, c, a))
            places = chosen(keys, batch.counts, among)[owners, offsets]
            exceeded = exceeded | (batch.counts > among)
        shared = jnp.zeros_like(owners) if len(rows.inputs) == 1 else environments
        taken = _of_slots(rows, (shared, places), (environments, places))
        return taken, _poisoned(own.astype(rows.labels.dtype), exceeded)


def _slots(batch: Batch, number: int) -> tuple[Array, Array, Array]:
    """Which example every slot holds, where the batch's environments follow one another.

    Returns:
        The place of its environment in the batch, [S]; its place among the environment's examples,
        [S]; and whether an environment of the batch has the slot, [B, S].
    """
    ends = jnp.cumsum(batch.counts)
    slot = jnp.arange(number, dtype=ends.dtype)
    last = len(batch.counts) - 1
    owners = jnp.sum(ends[None, :] <= slot[:, None], 1, dtype=jnp.int32)
    own = owners[None] == jnp.arange(last + 1, dtype=jnp.int32)[:, None]
    owners = jnp.minimum(owners, last)
    return owners, slot - (ends - batch.counts)[owners], own


def _exceeded(batch: Batch, slots: int) -> Array:
    """Whether the batch asks for more examples than there are slots, [B] with one value."""
    return jnp.broadcast_to(jnp.sum(batch.counts) > slots, batch.counts.shape)


def _of_slots(rows: Rows, inputs: tuple[Array, Array], labels: tuple[Array, Array]) -> Rows:
    """The rows at (environment, place) [S] each, as if all environments of the batch had them."""
    size = jnp.full(1, len(labels[0]), rows.labels.dtype)
    return Rows(rows.inputs[inputs][None], rows.labels[labels][None], size)


def _largest(words: Array, number: int) -> Array:
    """Where the largest `number` of words [B, n] are, [B, n] bool."""
    size = words.shape[1]
    if number == 1:
        return jnp.argmax(words, 1)[:, None] == jnp.arange(size)[None]
    chosen = jax.lax.top_k(words, min(number, size))[1]
    return jnp.any(chosen[:, :, None] == jnp.arange(size)[None, None], 1)


def _rows_of(rows: Rows, environments: Array) -> Rows:
    """The examples of some environments [B]; inputs that all of them share are not copied."""
    inputs = rows.inputs if len(rows.inputs) == 1 else rows.inputs[environments]
    return Rows(inputs, rows.labels[environments], rows.counts[environments])


def _poisoned(used: Array, exceeded: Array) -> Array:
    """NaN for environments [B] that have fewer examples than the batch asks for."""
    return jnp.where(exceeded[:, None], jnp.nan, used)
