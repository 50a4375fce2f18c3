"""Parts of a model's parameters as one vector: by name, by a mask, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.types import Array, Params, PyTree

__all__ = ["Masks", "Subspace", "hashable", "structure_of", "subspace_of"]

ALLOWED = (
    "a whole number of leading directions, the name of a part of the parameters, or a tree of "
    "True and False, in arrays or for whole parts"
)


class Subspace(NamedTuple):
    """Coordinates of a part of the parameters.

    Attributes:
        size: k, the number of its coordinates.
        directions: how many exponents are wanted, at most k.
        whole: whether it holds all parameters.
        take: params -> [k].
        put: (params, [k]) -> params with these coordinates.
    """

    size: int
    directions: int
    whole: bool
    take: Callable[[Params], Array]
    put: Callable[[Params, Array], Params]


class Masks(NamedTuple):
    """The masks of all leaves, in a form by which programs are recognised."""

    shapes: tuple[tuple[int, ...], ...]
    bits: tuple[bytes, ...]


def hashable(params: Params, subspace: object) -> int | str | Masks:
    """The same subspace as a number, a name or masks; for the arguments see `subspace_of`."""
    if isinstance(subspace, str | Masks) or _is_number(subspace):
        return subspace
    masks = _masks(params, subspace)
    return Masks(tuple(mask.shape for mask in masks), tuple(mask.tobytes() for mask in masks))


def subspace_of(params: Params, subspace: object, most: int) -> Subspace:
    """The part of the parameters that an argument `subspace` means.

    Args:
        params: of the model; only their structure and shapes are used.
        subspace: see `growth`.
        most: the most directions of a mask.

    Raises:
        ValueError: if it names nothing, or does not fit the parameters.
    """
    whole = _is_number(subspace)
    if whole:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
        masks = [np.ones(shape, bool) for shape in shapes]
        size = sum(mask.size for mask in masks)
        directions = checks.integer("subspace", subspace, maximum=size)
    else:
        masks = _masks_of(params, subspace)
        size = sum(int(mask.sum()) for mask in masks)
        directions = min(size, most)
        if not size:
            raise ValueError("subspace must hold at least one parameter, got none")
    _check_kinds(params, masks)
    return _of_masks(masks, size, directions, whole)


def _is_number(subspace: object) -> TypeGuard[int]:
    return isinstance(subspace, int | np.integer) and not isinstance(subspace, bool)


def _masks_of(params: Params, subspace: object) -> list[np.ndarray]:
    if isinstance(subspace, str):
        return _named(params, subspace)
    if isinstance(subspace, Masks):
        pairs = zip(subspace.shapes, subspace.bits, strict=True)
        return [np.frombuffer(bits, bool).reshape(shape) for shape, bits in pairs]
    return _masks(params, subspace)


def _of_masks(masks: Sequence[np.ndarray], size: int, directions: int, whole: bool) -> Subspace:
    places = [np.flatnonzero(mask) for mask in masks]
    ends = np.cumsum([len(place) for place in places])[:-1]

    def take(params: Params) -> Array:
        leaves = jax.tree.leaves(params)
        parts = [jnp.ravel(leaf)[at] for leaf, at in zip(leaves, places, strict=True) if len(at)]
        return jnp.concatenate(parts)

    def put(params: Params, vector: Array) -> Params:
        leaves, structure = jax.tree.flatten(params)
        parts = jnp.split(vector, ends)
        # A leaf outside stays a constant, so that no derivative is computed for it.
        new = [
            leaf
            if not len(at)
            else part.reshape(leaf.shape).astype(leaf.dtype)
            if len(at) == leaf.size
            else jnp.ravel(leaf).at[at].set(part.astype(leaf.dtype)).reshape(leaf.shape)
            for leaf, at, part in zip(leaves, places, parts, strict=True)
        ]
        return jax.tree.unflatten(structure, new)

    return Subspace(size, directions, whole, take, put)


def _named(params: Params, name: str) -> list[np.ndarray]:
    """Masks of all leaves that have a name on their path."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    keys = [[_word(entry) for entry in path] for path, _ in paths]
    checks.choice("subspace", name, dict.fromkeys(word for words in keys for word in words))
    return [
        np.full(np.shape(leaf), name in words) for words, (_, leaf) in zip(keys, paths, strict=True)
    ]


def _word(entry: object) -> str:
    """A dictionary's key, an attribute, or a place in a list."""
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _masks(params: Params, tree: PyTree) -> list[np.ndarray]:
    """Masks of the leaves from a tree of booleans, whose leaves may stand for parts of params."""
    found: list[np.ndarray] = []

    def spread(mask: object, part: Params) -> None:
        array = checks.concrete(mask)
        if array is None or array.dtype != bool:
            raise ValueError(f"subspace must be {ALLOWED}, got {_shown(mask)}")
        for leaf in jax.tree.leaves(part):
            try:
                found.append(np.array(np.broadcast_to(array, np.shape(leaf))))
            except ValueError:
                raise ValueError(
                    f"subspace must have masks of the shapes of the parameters, got "
                    f"{list(array.shape)} for {list(np.shape(leaf))}"
                ) from None

    try:
        jax.tree.map(spread, tree, params)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"subspace must be {ALLOWED}, got {_shown(tree)}: {error}") from None
    except ValueError as error:
        if str(error).startswith("subspace"):
            raise
        raise ValueError(
            f"subspace must have the structure of the parameters, {structure_of(params)}, with an "
            f"array or a single value for each *, got {structure_of(tree)}"
        ) from None
    return found


def structure_of(tree: PyTree) -> str:
    """The keys of a tree, with a * for every array."""
    return str(jax.tree.structure(tree)).removeprefix("PyTreeDef(").removesuffix(")")


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]} ..."


def _check_kinds(params: Params, masks: Sequence[np.ndarray]) -> None:
    for leaf, mask in zip(jax.tree.leaves(params), masks, strict=True):
        if mask.any() and not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                "subspace must hold parameters that are floating-point numbers, got "
                f"{jnp.result_type(leaf)}"
            )
