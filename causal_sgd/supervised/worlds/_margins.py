"""Separable worlds: linear predictions exist that classify every example without an error."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.worlds._placement import Numbers, array, weights_of
from causal_sgd.supervised.worlds._table import TableWorld
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["minority_groups", "separable"]


def separable(
    points: np.ndarray | Array,
    *,
    shares: np.ndarray | Array | None = None,
    causal: Sequence[int] = (0,),
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Finitely many inputs on one side of their label, y x = v_n, in every environment.

    Both labels are equally likely, and the inputs of the other label are the negative ones. (After
    Soudry et al. 2018, who study which of the predictions without an error training finds.) No
    weights are those of an invariant predictor, so the target is unknown.

    Args:
        points: v_n = y x of every environment, [E, n, p]; may be traced.
        shares: of the points in each environment, [E, n], rows sum to one; equal ones by default.
            May be traced.
        causal: indices of the inputs that count as causal.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; its world does not depend on the key. The environments of training are
        those of the test, too.

    Raises:
        ValueError: if an argument is out of range or has a wrong shape.
    """
    values = array("points", points, ("E", "n", "p"))
    size, number, dim = values.shape
    equal = np.full((size, number), 1 / number)
    masses = array("shares", equal if shares is None else shares, (size, number), minimum=0)
    sums = checks.concrete(jnp.sum(masses, 1))
    if sums is not None and (abs(sums - 1) > 1e-5).any():
        raise ValueError(f"shares must sum to one in every environment, got {sums.tolist()}")
    chosen = np.zeros(dim, bool)
    checks.instance("causal", causal, (list, tuple), "a list of places of inputs")
    for index in causal:
        chosen[checks.integer("causal", index, minimum=0, maximum=dim - 1)] = True
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, size)

    def world(key: Key) -> TableWorld:
        del key
        return _both_labels(values, masses, chosen, weights_of(probabilities, size))

    return world


def minority_groups(
    *,
    minority_share: float | Array = 0.1,
    margins: Numbers = (1.0, 1.0),
    largest: float | Array = 4.0,
    nodes: int = 32,
) -> WorldFactory:
    """A majority and a minority that share one input, each with an input of its own.

    y x = Z (1, 1, 0) in the majority and Z (1, 0, 1) in the minority, with Z uniform between the
    least margin of the group and a largest one, and y = +-1 with probability 1/2. The groups are
    the environments, the majority the first, so that drawing examples of both by their
    probabilities is training on all data, and equal shares are balanced groups. Z takes the nodes
    of Gauss-Legendre quadrature with its weights as probabilities, so that means of smooth
    functions are those of the uniform law. The inputs separate the labels, and no weights are
    those of an invariant predictor: the target is unknown.

    Args:
        minority_share: probability of the minority, in [0, 1]; may be traced.
        margins: least Z of majority and minority, [2], above 0; may be traced.
        largest: largest Z, above both; may be traced.
        nodes: of the quadrature.

    Returns:
        A world factory; its world does not depend on the key. The environments of training are
        those of the test, too.

    Raises:
        ValueError: if a number is out of range.
    """
    checks.number("minority_share", minority_share, minimum=0, maximum=1)
    least = array("margins", margins, (2,), above=0)
    checks.number("largest", largest, above=0)
    checks.integer("nodes", nodes, maximum=200)
    top, bottom = checks.concrete(largest), checks.concrete(least)
    if top is not None and bottom is not None and bottom.max() >= top:
        raise ValueError(f"largest must be above the margins {bottom.tolist()}, got {top}")
    places, weights = np.polynomial.legendre.leggauss(nodes)

    def world(key: Key) -> TableWorld:
        del key
        z = least[:, None] + (largest - least[:, None]) * jnp.asarray((places + 1) / 2)[None]
        directions = jnp.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
        points = z[..., None] * directions[:, None]
        masses = jnp.broadcast_to(jnp.asarray(weights / 2, float)[None], (2, nodes))
        share = jnp.asarray(minority_share, float)
        return _both_labels(
            points, masses, np.array([True, False, False]), jnp.stack([1 - share, share])
        )

    return world


def _both_labels(
    points: Array, shares: Array, causal: np.ndarray, probabilities: Array
) -> TableWorld:
    """A table of the atoms (v, 1) and (-v, -1) of points [E, n, p] with shares [E, n]."""
    size, number, dim = points.shape
    flat = points.reshape(-1, dim)
    own = jnp.repeat(jnp.eye(size), number, 1)  # [E, E n], which points an environment has
    mass = own * shares.reshape(1, -1) / 2
    mass = jnp.concatenate([mass, mass], 1)
    ones = jnp.ones(len(flat))
    return TableWorld(
        inputs=jnp.concatenate([flat, -flat]),
        labels=jnp.concatenate([ones, -ones]),
        mass=mass,
        test_mass=mass,
        target=jnp.full(dim, jnp.nan),
        causal=jnp.asarray(causal),
        probabilities=probabilities,
    )
