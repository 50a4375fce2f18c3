"""Linear regression with weights of its own in every environment, and data of it on one design."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.worlds._design import DesignWorld
from causal_sgd.supervised.worlds._known import known_inputs
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._placement import Numbers, array, weights_of
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["checked", "fixed_design", "regression", "root_of"]


def regression(
    weights: Numbers,
    *,
    covariance: Numbers | None = None,
    noise: Numbers = 0.0,
    test_weights: Numbers | None = None,
    target: Numbers | None = None,
    causal: Sequence[int] | None = None,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Gaussian inputs of one covariance, and labels with other weights in every environment.

    x ~ N(0, S) and y = x'w_e + noise N. Under squared loss the population's mean gradient is
    S (w - w_e) / 2, so that every correlated regression with contradicting weights is such a world.

    Args:
        weights: w_e of every environment, [E, p]; may be traced.
        covariance: S [p, p], symmetric and positive semidefinite; may be traced. None for the
            identity.
        noise: standard deviation of the label's noise, [] or of every environment [E], at least 0;
            may be traced.
        test_weights: weights of the environments of the test, [T, p], which have the same inputs
            and, averaged over the environments, the same variance of the noise; None for the
            environments themselves.
        target: w* [p]; None for the weights of those inputs on which all environments agree, and 0
            for the others.
        causal: places of the inputs that count as causal; None for those whose target is not 0.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; its world does not depend on the key.

    Raises:
        ValueError: if an argument is out of range or has a wrong shape.
    """
    given = checked(weights, covariance, noise, test_weights, target, causal, probabilities)

    def world(key: Key) -> LinearWorld:
        del key
        size, dim = given.weights.shape
        root = root_of(given.covariance)
        tests, variances = given.tests()
        return LinearWorld(
            mixing=_mixing(root, given.weights, given.noise),
            means=jnp.zeros((size, dim + 1)),
            target=given.target,
            causal=given.causal,
            unscramble=jnp.eye(dim),
            test_mixing=_mixing(root, tests, jnp.sqrt(variances)),
            test_means=jnp.zeros((len(tests), dim + 1)),
            probabilities=given.probabilities,
        )

    return world


def fixed_design(
    weights: Numbers,
    *,
    num_examples: int | None = None,
    design: Numbers | None = None,
    covariance: Numbers | None = None,
    noise: Numbers = 0.0,
    shared_noise: bool = False,
    test_weights: Numbers | None = None,
    target: Numbers | None = None,
    causal: Sequence[int] | None = None,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Data of such a regression on one design X [n, p], which all environments share.

    The labels of environment e are X w_e + noise, drawn once with the world. Its population is
    these rows, so that `measurements.examples()` and `measurements.moments()` train on them. The
    environments of the test have the law of `regression`: their risks are generalisation errors.
    The design is held once, whatever the number of environments.

    Args:
        weights: w_e of every environment, [E, p]; may be traced.
        num_examples: n, whose inputs are drawn from N(0, S); static. None with a design.
        design: X [n, p], in place of drawn inputs; may be traced.
        covariance: S [p, p] of the inputs; may be traced. None for the identity.
        noise: standard deviation of the labels' noise, [] or of every environment [E], at least 0;
            may be traced.
        shared_noise: whether the noise of an example, in units of its standard deviation, is the
            same in all environments, so that it is no difference between them.
        test_weights: weights of the environments of the test, [T, p]; None for the environments
            themselves.
        target: w* [p]; None for the weights of those inputs on which all environments agree, and 0
            for the others.
        causal: places of the inputs that count as causal; None for those whose target is not 0.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory.

    Raises:
        ValueError: if an argument is out of range or has a wrong shape.
    """
    given = checked(weights, covariance, noise, test_weights, target, causal, probabilities)
    checks.flags(shared_noise=shared_noise)
    size, dim = given.weights.shape
    rows = None if design is None else array("design", design, ("n", dim))
    if (rows is None) == (num_examples is None):
        words = "got neither" if rows is None else f"got {num_examples} with a design"
        raise ValueError(f"num_examples must be given, or a design in its place, {words}")
    number = len(rows) if rows is not None else checks.integer("num_examples", num_examples)

    def world(key: Key) -> DesignWorld:
        kind = jnp.result_type(float)
        inputs = rows
        if inputs is None:
            inputs = random.normals(random.fold_in(key, 0), (number, dim), kind)
            root = root_of(given.covariance)
            inputs = inputs if root is None else linalg.product(inputs, root)
        own = (1 if shared_noise else size, number)
        errors = given.noise[:, None] * random.normals(random.fold_in(key, 1), own, kind)
        tests, variances = given.tests()
        square = jnp.eye(dim) if given.covariance is None else given.covariance
        return DesignWorld(
            inputs=inputs,
            labels=linalg.product(given.weights, inputs.T) + errors,
            target=given.target,
            causal=given.causal,
            probabilities=given.probabilities,
            test_covariance=square,
            test_weights=tests,
            test_variances=variances,
        )

    return world


class _Regression(NamedTuple):
    """Checked arguments of both worlds, as arrays."""

    weights: Array
    covariance: Array | None
    noise: Array  # [E]
    test_weights: Array | None
    target: Array
    causal: Array
    probabilities: Array

    def tests(self) -> tuple[Array, Array]:
        """The weights [T, p] and variances of the noise [T] of the environments of the test."""
        if self.test_weights is None:
            return self.weights, self.noise**2
        variance = jnp.sum(self.probabilities * self.noise**2)
        return self.test_weights, jnp.full(len(self.test_weights), variance)


def checked(
    weights: Numbers,
    covariance: Numbers | None,
    noise: Numbers,
    test_weights: Numbers | None,
    target: Numbers | None,
    causal: Sequence[int] | None,
    probabilities: Numbers | None,
) -> _Regression:
    """Check the arguments that worlds of one covariance share."""
    values = array("weights", weights, ("E", "p"))
    size, dim = values.shape
    square = None if covariance is None else array("covariance", covariance, (dim, dim))
    if square is not None:
        _check_covariance(square)
    checks.number("noise", noise, minimum=0, scalar=False)
    shape = (size,) if np.ndim(noise) else ()
    deviations = jnp.broadcast_to(array("noise", noise, shape), (size,))
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, size)
    if target is None:
        agreed = jnp.all(values == values[:1], 0)
        known = jnp.where(agreed, values[0], 0)
    else:
        known = array("target", target, (dim,))
    return _Regression(
        values,
        square,
        deviations,
        None if test_weights is None else array("test_weights", test_weights, ("T", dim)),
        known,
        known != 0 if causal is None else jnp.asarray(known_inputs(causal, None, dim)),
        weights_of(probabilities, size),
    )


def _check_covariance(covariance: Array) -> None:
    """Refuse a concrete matrix that is no covariance."""
    found = checks.concrete(covariance)
    if found is None:
        return
    found = np.asarray(found, np.float64)
    size = np.abs(found).max()
    if np.abs(found - found.T).max() > 1e-5 * size:
        raise ValueError("covariance must be symmetric, got a matrix that is not")
    least = np.linalg.eigvalsh((found + found.T) / 2)[0]
    if least < -1e-5 * size:
        raise ValueError(f"covariance must be positive semidefinite, got the eigenvalue {least:g}")


def root_of(covariance: Array | None) -> Array | None:
    """The symmetric root [p, p] of a covariance; None for the identity."""
    if covariance is None:
        return None
    found = checks.concrete(covariance)
    if found is not None:  # in double precision, and once
        values, vectors = np.linalg.eigh(np.asarray(found, np.float64))
        root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
        return jnp.asarray(root, covariance.dtype)
    values, vectors = linalg.eigh(covariance)
    return linalg.product(vectors * jnp.sqrt(jnp.maximum(values, 0))[None], vectors.T)


def _mixing(root: Array | None, weights: Array, deviations: Array) -> Array:
    """How inputs and label come from p + 1 noises in every environment, [E, p + 1, p + 1]."""
    size, dim = weights.shape
    inputs = jnp.eye(dim) if root is None else root
    along = weights if root is None else linalg.product(weights, root)
    top = jnp.concatenate([inputs, jnp.zeros((dim, 1))], 1)
    last = jnp.concatenate([along, deviations[:, None]], 1)
    shared = jnp.broadcast_to(top[None], (size, dim, dim + 1))
    return jnp.concatenate([shared, last[:, None]], 1)
