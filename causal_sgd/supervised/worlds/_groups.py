"""Mixtures whose groups agree or disagree with a spurious bit, or are environments themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised import losses
from causal_sgd.supervised._expectation import hermite
from causal_sgd.supervised._moments import Rows
from causal_sgd.supervised.worlds._mixture import TARGETS, MixtureWorld
from causal_sgd.supervised.worlds._placement import Numbers, array, rotation, weights_of
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["balancing", "malign_overfitting", "zin_logit"]

NODES = 64  # of the quadrature for the invariant predictor under logistic loss
BISECTIONS = 50


def zin_logit(
    *,
    dim_causal: int = 5,
    dim_spurious: int = 5,
    invariant_flip: float | Array = 0.1,
    spurious_flips: Numbers = (0.001, 0.1),
    test_flips: Numbers = (0.001, 0.2, 0.8, 0.999),
    noise: float | Array = 1.0,
    target: str = "squared",
    scramble: bool = False,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Two bits behind noisy inputs (the logit example of ZIN, Lin et al. 2022).

    y is +1 or -1 with probability 1/2. The bit a is y but for a sign that flips with probability
    alpha, and b is y but for a sign that flips with probability beta_e. The inputs are
    (a 1 + noise N, b 1 + noise N). The source's probabilities of agreement are 0.9, and 0.999 and
    0.9 in its two environments, which are the halves of its time. The best linear prediction from
    the inputs of a alone, w* = (c 1, 0), is the same in every environment: under squared loss
    c = (1 - 2 alpha) / (noise^2 + dim_causal), under logistic loss c is the root of a derivative by
    quadrature over 64 nodes.

    Args:
        dim_causal: number of the inputs of a.
        dim_spurious: number of the inputs of b.
        invariant_flip: alpha in [0, 1]; may be traced.
        spurious_flips: beta_e of every environment, in [0, 1]; may be traced.
        test_flips: those of the environments of the test.
        noise: standard deviation within a group, above 0; may be traced.
        target: "squared" or "logistic", the loss whose w* errors of weights are measured from.
        scramble: whether the inputs are rotated by a random rotation of the key.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory.

    Raises:
        ValueError: if an argument is out of range.
    """
    for name, value in (("dim_causal", dim_causal), ("dim_spurious", dim_spurious)):
        checks.integer(name, value)
    checks.number("invariant_flip", invariant_flip, minimum=0, maximum=1)
    betas = array("spurious_flips", spurious_flips, ("E",), minimum=0, maximum=1)
    tests = array("test_flips", test_flips, ("T",), minimum=0, maximum=1)
    checks.number("noise", noise, above=0)
    checks.choice("target", target, TARGETS)
    checks.flags(scramble=scramble)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, len(betas))
    dim = dim_causal + dim_spurious

    def world(key: Key) -> MixtureWorld:
        signs = jnp.array([1.0, -1.0])
        y, a, b = (part.ravel() for part in jnp.meshgrid(signs, signs, signs, indexing="ij"))
        alpha = jnp.asarray(invariant_flip, float)

        def shares(flips: Array) -> Array:
            """The shares [E, 8] of the groups (y, a, b)."""
            first = jnp.where(a == y, 1 - alpha, alpha)
            second = jnp.where((b == y)[None], 1 - flips[:, None], flips[:, None])
            return first[None] * second / 2

        bits = [jnp.repeat(a[:, None], dim_causal, 1), jnp.repeat(b[:, None], dim_spurious, 1)]
        turn = rotation(random.fold_in(key, 0), dim) if scramble else jnp.eye(dim)
        means = linalg.product(jnp.concatenate(bits, 1), turn)
        if target == "squared":
            size = (1 - 2 * alpha) / (noise**2 + dim_causal)
        else:
            size = _logit_weight(alpha, dim_causal, noise)
        causal = jnp.arange(dim) < dim_causal
        return MixtureWorld(
            weights=shares(betas),
            means=means[None],
            root=turn.T * jnp.full(dim, noise, float)[None],
            labels=y,
            test_weights=shares(tests),
            test_means=means[None],
            test_labels=y,
            target=linalg.product(turn.T, jnp.where(causal, size, 0)[:, None])[:, 0],
            causal=causal,
            unscramble=turn,
            probabilities=weights_of(probabilities, len(betas)),
        )

    return world


def balancing(
    *,
    dim_noise: int = 1200,
    num_examples: int | None = 1000,
    minority: float = 0.2,
    core_scale: float | Array = 1.0,
    spurious_scale: float | Array = 4.0,
    noise_scale: float | Array = 4.0,
    deviation: float | Array = 0.15,
    balanced: bool = False,
) -> WorldFactory:
    """Groups of a label and a spurious input among many of noise (toy of Idrissi et al. 2022).

    The core input is y (-1 + deviation N). The spurious input is the same with noise of its own,
    and with the other sign in a minority. The others are N(0, 1). All are scaled. The environments
    are the groups (y, majority or minority), in the order (1, majority), (-1, majority),
    (1, minority), (-1, minority), and their probabilities are their shares, so that
    `samplers.pooled` draws from all examples, and `samplers.stratified` balances the groups. The
    environments of the test are the same groups without noise, as in the source: the worst of them
    is the worst group.

    Errors of weights mean little here: w* is the best linear prediction under squared loss from the
    core input alone, with an intercept of zero.

    Args:
        dim_noise: number of the inputs of noise.
        num_examples: n of the world's own data set, all groups together, with shares as exact as
            whole numbers allow, for `measurements.examples()`; static. None for none. (In the
            source the minority is chosen at random from both labels together.)
        minority: share of the minority in either label, above 0 and below 1; static.
        core_scale: factor of the core input; may be traced.
        spurious_scale: factor of the spurious input; may be traced.
        noise_scale: factor of the noise, 2 or 4 in the source; may be traced.
        deviation: standard deviation of the core and the spurious input before scaling, above 0;
            may be traced.
        balanced: whether all groups of the data set have the size of the smallest, as when the
            others are subsampled (SUBG); the world's environments are then equally likely.

    Returns:
        A world factory. Input 0 is the core one, input 1 the spurious one.

    Raises:
        ValueError: if an argument is out of range, or a group would have no example.
    """
    checks.integer("dim_noise", dim_noise, minimum=0)
    checks.number("minority", minority, above=0)
    if checks.concrete(minority) is None or not minority < 1:
        raise ValueError(f"minority must be a static number above 0 and below 1, got {minority}")
    for name, value in (
        ("core_scale", core_scale),
        ("spurious_scale", spurious_scale),
        ("noise_scale", noise_scale),
    ):
        checks.number(name, value, minimum=0)
    checks.number("deviation", deviation, above=0)
    checks.flags(balanced=balanced)
    sizes = None
    if num_examples is not None:
        sizes = _group_sizes(checks.integer("num_examples", num_examples), float(minority))
        if balanced:
            sizes = (min(sizes),) * 4
    dim = 2 + dim_noise
    shares = (0.25,) * 4 if balanced else _shares(float(minority))

    def world(key: Key) -> MixtureWorld:
        labels = jnp.array([1.0, -1.0, 1.0, -1.0])
        spurious = jnp.array([1.0, 1.0, -1.0, -1.0]) * labels
        means = jnp.zeros((4, dim))
        means = means.at[:, 0].set(-core_scale * labels).at[:, 1].set(-spurious_scale * spurious)
        own = jnp.stack([jnp.asarray(v, float) for v in (core_scale, spurious_scale)]) * deviation
        every = jnp.eye(4)
        variance = core_scale**2 * (1 + deviation**2)
        weight = -core_scale / jnp.where(variance > 0, variance, 1)
        drawn = MixtureWorld(
            weights=every,
            means=means[None],
            root=jnp.concatenate([own, jnp.full(dim_noise, noise_scale, float)]),
            labels=labels,
            test_weights=every,
            test_means=means[None],
            test_labels=labels,
            target=jnp.zeros(dim).at[0].set(weight),
            causal=jnp.arange(dim) == 0,
            unscramble=jnp.eye(dim),
            probabilities=jnp.array(shares),
            test_root=jnp.concatenate([own, jnp.zeros(dim_noise)]),
        )
        if sizes is None:
            return drawn
        environments, most = jnp.arange(4), max(sizes)
        keys = random.fold_in(random.fold_in(key, 0), environments)
        x, y = jax.vmap(lambda k, e: drawn.draw_examples(k, e, most))(keys, environments)
        return drawn._replace(rows=Rows(x, y, jnp.array(sizes, y.dtype)))

    return world


def malign_overfitting(
    *,
    dim: int = 100,
    signal: float | Array = 1.0,
    spurious_signal: float | Array = 1.0,
    shifts: Numbers = (1.0, 0.0),
    test_shifts: Numbers = (-1.0, 1.0),
    noise: float | Array = 1.0,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Two signals in many inputs of noise, one of which varies (after Wald et al. 2023).

    y is +1 or -1 with probability 1/2 and x ~ N(y mu_c + theta_e y mu_s, noise^2 I) with orthogonal
    mu_c and mu_s: mu_c = signal times the first unit vector, mu_s = spurious_signal times the
    second. The error at theta is a monotone function of it, so that the largest error over theta in
    [-1, 1], the robust error of the source, is the metric `worst_test_error` at the tests -1 and 1.
    w* = (2 signal / noise^2, 0) is the logit from the first input alone.

    Args:
        dim: number of inputs, at least 2.
        signal: |mu_c|, at least 0; may be traced.
        spurious_signal: |mu_s|, at least 0; may be traced.
        shifts: theta of every environment; may be traced.
        test_shifts: those of the environments of the test.
        noise: standard deviation of every input, above 0; may be traced.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; its world does not depend on the key.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim, minimum=2)
    checks.number("signal", signal, minimum=0)
    checks.number("spurious_signal", spurious_signal, minimum=0)
    thetas = array("shifts", shifts, ("E",))
    tests = array("test_shifts", test_shifts, ("T",))
    checks.number("noise", noise, above=0)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, len(thetas))

    def world(key: Key) -> MixtureWorld:
        del key
        labels, inputs = jnp.array([1.0, -1.0]), jnp.arange(dim)

        def means(shifts: Array) -> Array:
            along = jnp.where(inputs == 1, spurious_signal, 0.0)[None] * shifts[:, None]
            center = jnp.where(inputs == 0, signal, 0.0)[None] + along
            return labels[None, :, None] * center[:, None]

        return MixtureWorld(
            weights=jnp.full((len(thetas), 2), 0.5),
            means=means(thetas),
            root=jnp.full(dim, noise, float),
            labels=labels,
            test_weights=jnp.full((len(tests), 2), 0.5),
            test_means=means(tests),
            test_labels=labels,
            target=jnp.where(inputs == 0, 2 * jnp.asarray(signal, float) / noise**2, 0),
            causal=inputs == 0,
            unscramble=jnp.eye(dim),
            probabilities=weights_of(probabilities, len(thetas)),
        )

    return world


def _shares(minority: float) -> tuple[float, ...]:
    return ((1 - minority) / 2,) * 2 + (minority / 2,) * 2


def _group_sizes(number: int, minority: float) -> tuple[int, ...]:
    """How many of n examples are in each of the four groups."""
    labels = number - number // 2, number // 2
    few = tuple(round(size * minority) for size in labels)
    sizes = labels[0] - few[0], labels[1] - few[1], *few
    if min(sizes) < 1:
        raise ValueError(
            "num_examples must leave an example to each of the four groups, got "
            f"{number} with a minority of {minority}"
        )
    return sizes


def _logit_weight(flip: Array, dim: int, noise: float | Array) -> Array:
    """The best c of a logit c x'1 under logistic loss, from inputs x = a 1 + noise N.

    Args:
        flip: how often a is not the label, [].
        dim: number of inputs.
        noise: standard deviation of an input.
    """
    points, weights = (jnp.asarray(each, flip.dtype) for each in hermite(NODES))
    one = jnp.ones(NODES, flip.dtype)

    def slope(weight: Array) -> Array:
        total = jnp.zeros((), flip.dtype)
        for share, sign in ((1 - flip, 1), (flip, -1)):
            sums = sign * dim + noise * dim**0.5 * points  # x'1 where the label is 1
            first = losses.logistic.derivatives(weight * sums, one)[0]
            total = total + share * jnp.sum(weights * first * sums)
        return total

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        rising = slope(middle) > 0
        return jnp.where(rising, low, middle), jnp.where(rising, middle, high)

    # Without flips the best is 2 / noise^2; they only shrink it. Of flips above 1/2 the sign turns.
    most = jnp.asarray(2 / noise**2, flip.dtype)
    low, high = jax.lax.fori_loop(0, BISECTIONS, halved, (-most, most))
    return (low + high) / 2
