"""Linear Gaussian structural equation models under interventions, random or a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._placement import Numbers, array, rotated, rotation, weights_of
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["Intervention", "from_equations", "sem"]


class Intervention(NamedTuple):
    """What happens to one node in one environment.

    "shift" adds a number N(mean, variance) to its equation, "do" replaces its equation by such a
    number, and "scale" multiplies the standard deviation of its noise by the factor.
    """

    kind: Literal["shift", "do", "scale"]
    node: int
    mean: float | Array = 0.0
    variance: float | Array = 0.0
    factor: float | Array = 1.0


class Equations(NamedTuple):
    """Node j = sum_i weights[i, j] node i + N(means[j], variances[j]), in every environment."""

    weights: Array  # [E, r, r], without cycles
    means: Array  # [E, r]
    variances: Array  # [E, r]


def sem(
    *,
    dim: int = 5,
    degree: float | Array = 2.7,
    num_environments: int = 3,
    max_targets: int = 2,
    shift: float | Array = 1.0,
    shift_variance: float | Array = 1.0,
    scramble: bool = False,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """A random linear Gaussian model under random shifts, as the tests of causalicp draw them.

    The label and the inputs are the nodes of a random graph: a random order, and every edge along
    it with the probability degree / p. Weights are +-U(1/2, 1), noises have means U(0, 1) and
    variances U(1, 2). In every environment 0 to `max_targets` random inputs (a uniform number, all
    different) are shifted by N(m, v) with m = shift U(2, 3) and v = shift_variance U(1, 2).

    Args:
        dim: number of inputs p; the graph has p + 1 nodes.
        degree: expected number of edges at a node, at most p; may be traced.
        num_environments: E.
        max_targets: the most inputs that are shifted in an environment, at most p.
        shift: size of the shifts of means; may be traced.
        shift_variance: size of the added variances, at least 0; may be traced.
        scramble: whether the inputs are rotated by a random rotation of the key.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory. Its w* holds the weights of the label's parents; where the label has none,
        it is zero.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.integer("num_environments", num_environments)
    checks.integer("max_targets", max_targets, minimum=0, maximum=dim)
    checks.number("degree", degree, minimum=0, maximum=dim)
    checks.number("shift", shift)
    checks.number("shift_variance", shift_variance, minimum=0)
    _check_place(scramble, probabilities, num_environments)

    def world(key: Key) -> LinearWorld:
        weights, means, variances = _random_model(random.fold_in(key, 0), dim, degree)

        def environment(key: Key) -> tuple[Array, Array]:
            targets = jnp.append(_targets(random.fold_in(key, 0), dim, max_targets), False)
            uniform = _uniforms(random.fold_in(key, 1), (2, dim + 1))
            return (
                jnp.where(targets, shift * (2 + uniform[0]), 0),
                jnp.where(targets, shift_variance * (1 + uniform[1]), 0),
            )

        keys = random.fold_in(random.fold_in(key, 1), jnp.arange(num_environments))
        shifts, added = jax.vmap(environment)(keys)
        every = jnp.broadcast_to(weights, (num_environments, dim + 1, dim + 1))
        equations = Equations(every, means[None] + shifts, variances[None] + added)
        found = _world(equations, None, weights, dim, probabilities)
        return rotated(found, rotation(random.fold_in(key, 2), dim)) if scramble else found

    return world


def from_equations(
    weights: np.ndarray | Array,
    *,
    variances: Numbers = 1.0,
    means: Numbers = 0.0,
    label: int = -1,
    interventions: Sequence[Sequence[Intervention]] = ((),),
    tests: Sequence[Sequence[Intervention]] = (),
    scramble: bool = False,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """A user's linear Gaussian structural equation model, with an environment per intervention.

    Node j = sum_i weights[i, j] node i + noise. The inputs are the nodes but for the label, in
    their order, and w* holds the weights of the label's parents.

    Args:
        weights: [r, r], r = p + 1, the direct effect of node i on node j; without cycles. May be
            traced.
        variances: of the noises, a number or [r], at least 0; may be traced.
        means: of the noises, a number or [r]; may be traced.
        label: which node the label is; the last one by default.
        interventions: those of every environment, [E], such as
            `[[], [Intervention("shift", 0, mean=2.0)]]`; no environment may replace the equation
            of the label. Their numbers may be traced.
        tests: those of the environments of the test.
        scramble: whether the inputs are rotated by a random rotation of the key.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; unscrambled, its world does not depend on the key.

    Raises:
        ValueError: if an argument is out of range, or the weights have a cycle.
    """
    every = array("weights", weights, ("r", "r"))
    nodes = every.shape[0]
    if nodes < 2 or every.shape[1] != nodes:
        raise ValueError(
            f"weights must be a square matrix [r, r] with r >= 2, got shape {list(every.shape)}"
        )
    _check_cycles(weights)
    target = checks.integer("label", label, minimum=-nodes, maximum=nodes - 1) % nodes
    noise = _of_nodes("variances", variances, nodes, minimum=0)
    center = _of_nodes("means", means, nodes)
    for name, value in (("interventions", interventions), ("tests", tests)):
        _check_interventions(name, value, nodes, target)
    if not len(interventions):
        raise ValueError("interventions must have at least one environment, got none")
    _check_place(scramble, probabilities, len(interventions))

    def world(key: Key) -> LinearWorld:
        base = Equations(every, center, noise)
        training = _under(base, interventions)
        test = _under(base, tests) if len(tests) else None
        found = _world(training, test, every, target, probabilities)
        return rotated(found, rotation(key, nodes - 1)) if scramble else found

    return world


def _random_model(key: Key, dim: int, degree: float | Array) -> tuple[Array, Array, Array]:
    """Weights [p + 1, p + 1], means and variances [p + 1] of the nodes; the label is the last."""
    nodes = dim + 1
    uniform = _uniforms(key, (3, nodes, nodes))
    place, means, variances = _uniforms(random.fold_in(key, 1), (3, nodes))
    along = place[:, None] < place[None, :]
    sign = jnp.where(uniform[1] < 0.5, -1.0, 1.0)
    sizes = sign * (0.5 + uniform[2] / 2)
    weights = jnp.where(along & (uniform[0] < degree / dim), sizes, 0)
    return weights, means, 1 + variances


def _targets(key: Key, dim: int, most: int) -> Array:
    """A random set of at most `most` of the inputs, [p] bool; all sizes are equally likely."""
    count = jnp.floor(_uniforms(random.fold_in(key, 0), (1,))[0] * (most + 1))
    return random.subset(random.fold_in(key, 1), dim, count.astype(jnp.int32))


def _uniforms(key: Key, shape: tuple[int, ...]) -> Array:
    words = random.bits(key, int(np.prod(shape)))
    return random.uniforms(words, jnp.result_type(float)).reshape(shape)


def _under(base: Equations, environments: Sequence[Sequence[Intervention]]) -> Equations:
    """The equations of every environment under its interventions."""
    every = [base] * len(environments)
    for place, interventions in enumerate(environments):
        weights, means, variances = base
        for kind, node, mean, variance, factor in interventions:
            if kind == "scale":
                variances = variances.at[node].mul(factor**2)
                continue
            if kind == "do":
                weights = weights.at[:, node].set(0)
                means, variances = means.at[node].set(0), variances.at[node].set(0)
            means, variances = means.at[node].add(mean), variances.at[node].add(variance)
        every[place] = Equations(weights, means, variances)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *every)


def _world(
    equations: Equations,
    tests: Equations | None,
    weights: Array,
    label: int,
    probabilities: Numbers | None,
) -> LinearWorld:
    nodes = weights.shape[0]
    order = np.array([node for node in range(nodes) if node != label] + [label])
    mixing, means = _solved(equations)
    test_mixing, test_means = (mixing[:0], means[:0]) if tests is None else _solved(tests)
    target = weights[order[:-1], label]
    size = mixing.shape[0]
    return LinearWorld(
        mixing=mixing[:, order],
        means=means[:, order],
        target=target,
        causal=target != 0,
        unscramble=jnp.eye(nodes - 1),
        test_mixing=test_mixing[:, order],
        test_means=test_means[:, order],
        probabilities=weights_of(probabilities, size),
    )


def _solved(equations: Equations) -> tuple[Array, Array]:
    """The mixing [E, r, r] of the nodes' noises and the means [E, r] of the nodes."""
    effects = jnp.swapaxes(equations.weights, 1, 2)
    nodes = effects.shape[-1]
    # (I - W')^-1 = (I + W') (I + W'^2) (I + W'^4) ... is exact, since W'^r = 0 without cycles.
    total, power = jnp.eye(nodes)[None] + effects, effects
    for _ in range(max(nodes - 1, 1).bit_length() - 1):
        power = linalg.product(power, power)
        total = total + linalg.product(power, total)
    means = linalg.product(total, equations.means[:, :, None])[:, :, 0]
    return total * jnp.sqrt(equations.variances)[:, None, :], means


def _of_nodes(name: str, value: Numbers, nodes: int, *, minimum: float | None = None) -> Array:
    """A number or one per node as an array [r]."""
    checks.number(name, value, minimum=minimum, scalar=False)
    if not np.ndim(value):
        return jnp.broadcast_to(jnp.asarray(value, float), (nodes,))
    return array(name, value, (nodes,), minimum=minimum)


def _check_cycles(weights: np.ndarray | Array) -> None:
    values = checks.concrete(weights)
    if values is None:
        return
    edges, reached = values != 0, values != 0
    for _ in range(len(values) - 1):
        reached = edges | (reached.astype(int) @ edges > 0)
    cycle = np.flatnonzero(np.diagonal(reached))
    if len(cycle):
        raise ValueError(
            "weights must have no cycles, so that nodes can be computed one after the other, got "
            f"one through the nodes {cycle.tolist()}"
        )


def _check_interventions(
    name: str, environments: Sequence[Sequence[Intervention]], nodes: int, label: int
) -> None:
    allowed = "a list of interventions for every environment, such as [[], [Intervention(...)]]"
    checks.instance(name, environments, (list, tuple), allowed)
    for interventions in environments:
        checks.instance(name, interventions, (list, tuple), allowed)
        for each in interventions:
            checks.instance(name, each, Intervention, allowed)
            checks.choice(f"{name}: kind", each.kind, ("shift", "do", "scale"))
            checks.integer(f"{name}: node", each.node, minimum=0, maximum=nodes - 1)
            checks.number(f"{name}: mean", each.mean)
            checks.number(f"{name}: variance", each.variance, minimum=0)
            checks.number(f"{name}: factor", each.factor, minimum=0)
            if each.kind == "do" and each.node == label:
                raise ValueError(
                    f"{name} must not replace the equation of the label, node {label}, got "
                    f"a do of node {each.node}"
                )


def _check_place(scramble: bool, probabilities: Numbers | None, environments: int) -> None:
    checks.flags(scramble=scramble)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, environments)
