"""Three regressions with contradicting weights, and the Lasso of heterogeneity of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import Array, Key, Snapshot, Trace

__all__ = [
    "CHAIN",
    "DESIGN",
    "FEATURES",
    "Chain",
    "Design",
    "Features",
    "chain_lasso",
    "chain_run",
    "design_interpolator",
    "design_lasso",
    "design_run",
    "features_lasso",
    "features_run",
    "signs",
]


class Chain(NamedTuple):
    """Twenty inputs of correlation .5^|i - j|, and environments with independent signs."""

    dim: int = 20
    correlation: float = 0.5
    invariant: tuple[int, ...] = (0, 1, 2)  # of weight 1
    spurious: tuple[int, ...] = (6, 9, 12, 17)
    mean: float = 0.5
    spreads: tuple[float, ...] = (2.0, 4.0, 6.0, 8.0)
    every: int = 5  # steps between frames
    init_scale: float = 0.3

    def covariance(self) -> np.ndarray:
        places = np.arange(self.dim)
        return self.correlation ** abs(places[:, None] - places[None, :])

    def weights(self) -> np.ndarray:
        """w_e [8, 20]."""
        weights = np.zeros((8, self.dim))
        weights[:, list(self.invariant)] = 1
        weights[:, list(self.spurious)] = self.mean + signs() * np.array(self.spreads)
        return weights


class Features(NamedTuple):
    """An invariant and a spurious input of unequal variances."""

    learning_rate: float = 0.01
    variances: tuple[float, float] = (4.0, 1.0)
    init_scale: float = 0.3


class Design(NamedTuple):
    """Forty examples of a hundred inputs, five of them with weight 1 and a spurious one."""

    dim: int = 100
    num_examples: int = 40
    invariant: int = 5
    mean: float = 1.0
    spread: float = 18.0
    learning_rate: float = 0.01
    every: int = 20
    init_scale: float = 1.0

    def truth(self) -> np.ndarray:
        """The invariant weights [100]."""
        return np.append(np.ones(self.invariant), np.zeros(self.dim - self.invariant))

    def weights(self, spread: float | Array) -> Array:
        """w_e [2, 100]; the spurious input is the one after the invariant ones."""
        import jax.numpy as jnp

        both = jnp.broadcast_to(jnp.asarray(self.truth(), float), (2, self.dim))
        return both.at[:, self.invariant].set(self.mean + spread * jnp.array([1.0, -1.0]))


CHAIN, FEATURES, DESIGN = Chain(), Features(), Design()


def signs() -> np.ndarray:
    """Signs [8, 4] of which any three are independent over the rows."""
    bits = np.array([[row >> place & 1 for place in range(3)] for row in range(8)])
    return 1 - 2.0 * np.concatenate([bits, bits.sum(1, keepdims=True) % 2], 1)


def chain_run(steps: int) -> Callable[..., Trace]:
    """A cell in the chain: means over the second half of a run of weights and exponents."""

    def run(key: Key, *, learning_rate: float | Array) -> Trace:
        import jax.numpy as jnp

        from causal_sgd import linalg, training
        from causal_sgd.supervised import worlds

        covariance = jnp.asarray(CHAIN.covariance(), float)
        cross = linalg.product(jnp.asarray(CHAIN.weights(), float), covariance)

        def exponents(snapshot: Snapshot) -> Array:
            mean = linalg.product(snapshot.estimate[None], covariance)
            factors = 1 - learning_rate * (mean - cross)
            return jnp.mean(jnp.log(jnp.abs(factors)), 0)

        world = worlds.regression(CHAIN.weights(), covariance=CHAIN.covariance())
        numbers = CHAIN.init_scale, learning_rate, steps, CHAIN.every
        trace = _trained(key, CHAIN.dim, world, *numbers, exponents=exponents)
        return training.time_average(trace)

    return run


def chain_lasso(learning_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """The Lasso's weights [20] in the chain, and the exponents there [20]."""
    from causal_sgd.theory import sparse

    covariance = CHAIN.covariance()
    cross = CHAIN.weights() @ covariance
    problem = covariance, cross
    found = sparse.heterogeneity_lasso(*problem, learning_rate=learning_rate).estimate
    exponents = sparse.growth_exponents(found, *problem, learning_rate=learning_rate)
    return np.asarray(found, float), np.asarray(exponents, float)


def features_run(steps: int, every: int) -> Callable[..., Trace]:
    """A cell with two features, whose only frame is the mean over the second half of the run."""

    def run(
        key: Key,
        *,
        learning_rate: float | Array,
        correlation: float | Array,
        spread: float | Array,
        mean: float | Array,
    ) -> Trace:
        import jax.numpy as jnp

        from causal_sgd import training
        from causal_sgd.supervised import worlds

        sizes = jnp.sqrt(jnp.asarray(FEATURES.variances))
        unit = jnp.eye(2) + correlation * (1 - jnp.eye(2))
        spurious = mean + spread * jnp.array([1.0, -1.0])
        world = worlds.regression(
            jnp.stack([jnp.ones(2), spurious], 1),
            covariance=unit * sizes[:, None] * sizes[None, :],
            target=np.array([1.0, 0.0]),
            causal=(0,),
        )
        numbers = FEATURES.init_scale, learning_rate, steps, every
        return training.time_average(_trained(key, 2, world, *numbers))

    return run


def features_lasso(
    correlation: np.ndarray, spread: np.ndarray, mean: float, learning_rate: float
) -> np.ndarray:
    """The Lasso's weights [..., 2] with two features, at correlations and spreads [...]."""
    from causal_sgd.theory import sparse

    rho, spread = np.broadcast_arrays(correlation, spread)
    own, other = FEATURES.variances
    shared = rho * np.sqrt(own * other)
    second = np.stack([own + 0 * rho, shared, shared, other + 0 * rho], -1)
    cross = np.stack([own + shared * mean, shared + other * mean], -1)
    variances = np.stack([shared, other + 0 * rho], -1) ** 2 * spread[..., None] ** 2
    found = sparse.weighted_lasso(
        second.reshape(*rho.shape, 2, 2), cross, learning_rate / 2 * variances, sweeps=20
    )
    return np.asarray(found, float)


def design_run(steps: int) -> Callable[..., Trace]:
    """A cell on a drawn design: the mean weights over the second half of a run, and the design."""

    def run(key: Key, *, spread: float | Array) -> Trace:
        from causal_sgd import random, training
        from causal_sgd.supervised import worlds

        inputs = random.normals(random.fold_in(key, 1), (DESIGN.num_examples, DESIGN.dim), float)
        truth = DESIGN.truth()
        world = worlds.fixed_design(
            DESIGN.weights(spread),
            design=inputs,
            target=truth,
            causal=tuple(np.flatnonzero(truth).tolist()),
        )
        numbers = DESIGN.init_scale, DESIGN.learning_rate, steps, DESIGN.every
        trace = training.time_average(_trained(key, DESIGN.dim, world, *numbers))
        return trace._replace(metrics={**trace.metrics, "inputs": inputs[None]})

    return run


def design_lasso(inputs: np.ndarray) -> np.ndarray:
    """The Lasso's weights [designs, 100] on designs [designs, 40, 100]."""
    from causal_sgd.theory import sparse

    second = inputs.transpose(0, 2, 1) @ inputs / inputs.shape[1]
    cross = second @ np.asarray(DESIGN.weights(0.0)[0])
    variances = (DESIGN.spread * second[:, DESIGN.invariant]) ** 2
    penalties = DESIGN.learning_rate / 2 * variances
    return np.asarray(sparse.weighted_lasso(second, cross, penalties, sweeps=300), float)


def design_interpolator(inputs: np.ndarray) -> np.ndarray:
    """Where gradient flow on the mean labels ends, [designs, 100]."""
    from causal_sgd.theory import sparse

    labels = inputs @ np.asarray(DESIGN.weights(0.0)[0])
    scale = DESIGN.init_scale**2
    found = sparse.hyperbolic_interpolator(inputs, labels, scale, nonnegative=True)
    return np.asarray(found, float)


def _trained(
    key: Key,
    dim: int,
    world: WorldFactory,
    init_scale: float,
    learning_rate: float | Array,
    steps: int,
    every: int,
    **metrics: Callable[[Snapshot], Array],
) -> Trace:
    """HeteroSGD on u * u, one environment a step, with frames of the weights."""
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements, models

    algorithm = training.sgd(
        world=world,
        sampler=training.samplers.hetero(batch_size=1),
        measurement=measurements.moments(),
        model=models.hadamard(dim=dim, init_scale=init_scale),
        optimizer=optax.sgd(learning_rate),
    )
    watched = {"weights": lambda snapshot: snapshot.estimate, **metrics}
    return training.run(
        key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=every
    )
