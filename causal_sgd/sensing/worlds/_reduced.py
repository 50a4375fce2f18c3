"""Worlds in the coordinates of their own signals, for `models.order_parameters`."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import checks, linalg
from causal_sgd.sensing.worlds._world import World, WorldFactory
from causal_sgd.types import Key


class ReducedWorld(World):
    """A world whose signals lie in its first r1 + r2 rows; no evolution may move its bases."""

    __slots__ = ()

    def check_evolution(self, before: World) -> None:
        """Refuse an evolution that moves the bases, along which coordinates are taken.

        Args:
            before: the world before the evolution, with the same arrays where they are unchanged.

        Raises:
            ValueError: if an array of a basis is another.
        """
        for name in ("invariant_basis", "spurious_basis"):
            if getattr(self, name) is not getattr(before, name):
                raise ValueError(
                    f"evolve must keep the {name} of a reduced world, got an evolution that "
                    "changes it (such as rotate): order parameters are coordinates along fixed "
                    "directions; use models.factored with low_rank_law"
                )


def reduced(world: WorldFactory, *, rows: int) -> WorldFactory:
    """The signals of a world in coordinates along U* and V, followed by rows of zeros.

    The first r1 coordinates are those along U*. The same key gives the same spurious cores as the
    world itself, and as a family of any other `dim` with the same numbers: cores do not depend on
    it. A world of `dim` r1 + r2 is cheapest.

    Args:
        world: any family, or given arrays.
        rows: of the coordinates, `model.rows` of `models.order_parameters`.

    Returns:
        A function key -> World, whose bases have `rows` rows.

    Raises:
        ValueError: if `rows` is not a whole number, or (when called) below r1 + r2.
    """
    checks.world_factory("world", world)
    checks.integer("rows", rows)

    def draw(key: Key) -> ReducedWorld:
        full = world(key)
        shared = full.invariant_basis.shape[1]
        size = shared + full.spurious_basis.shape[1]
        if rows < size:
            raise ValueError(f"rows must be at least r1 + r2 = {size}, got {rows}")
        # R of the bases has their products, hence all that depends on them up to a rotation.
        inside = linalg.triangle(full.bases)
        # Rounding would let every direction feed all others.
        clean = jnp.where(jnp.abs(inside) > 64 * jnp.finfo(inside.dtype).eps, inside, 0)
        bases = jnp.pad(clean, ((0, rows - size), (0, 0)))
        return ReducedWorld(
            bases[:, :shared],
            full.invariant_spectrum,
            bases[:, shared:],
            full.spurious_cores,
            full.probabilities,
        )

    return draw
