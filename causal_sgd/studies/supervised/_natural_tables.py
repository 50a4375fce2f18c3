"""Tables with environments as problems of HeteroSGD, and what theory says of them beforehand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

if TYPE_CHECKING:
    from causal_sgd.supervised.data import Table
    from causal_sgd.supervised.worlds import LinearWorld
    from causal_sgd.types import Array, Key, Trace

__all__ = [
    "GROUPS",
    "TABLES",
    "Moments",
    "Outlook",
    "Problem",
    "cell",
    "columns",
    "held_out_error",
    "lasso",
    "moments",
    "outlook",
    "pooled",
    "problems",
]

TABLES = ("diabetes", "munnell", "occupation", "year", "gapminder", "grunfeld")
GROUPS = (("munnell",), ("diabetes", "occupation", "year", "gapminder", "grunfeld"))
"""Tables that share a program: that of 48 states has one of its own."""
INIT_SCALE = 0.3
AVERAGED = 0.75  # of a run that is left out of its time mean
EVERY = 10
STEPS = np.geomspace(1e-2, 1e3, 2001)  # on which a threshold is sought


class Problem(NamedTuple):
    """One fit."""

    table: str
    centred: bool = False  # within every environment
    held_out: int = -1  # the environment that does not train; -1 for none


class Moments(NamedTuple):
    """Moments of a problem, standardised by the rows that train."""

    second: np.ndarray  # [E, q, q] of (x, y, 1)
    shares: np.ndarray  # [E] of the rows; 0 for the environment that is held out

    @property
    def inputs(self) -> np.ndarray:
        """E x x' [E, p, p]."""
        return self.second[:, :-2, :-2]

    @property
    def cross(self) -> np.ndarray:
        """E x y [E, p]."""
        return self.second[:, :-2, -2]


class Outlook(NamedTuple):
    """What is known of every input before any training."""

    dissent: np.ndarray  # [p] share of the environments whose pull contradicts the mean one
    threshold: np.ndarray  # [p] the learning rate beyond which it would be rejected; inf for none
    stable: float  # the largest learning rate at which full gradients do not overshoot


@functools.cache
def _table(name: str) -> Table:
    from causal_sgd.supervised import data

    if name in ("occupation", "year"):
        return data.wage_panel(name)
    return getattr(data, name)()


def columns(name: str) -> list[str]:
    """Names of the inputs of a table."""
    return [str(column) for column in _table(name).x.columns]


@functools.cache
def problems(group: tuple[str, ...]) -> tuple[Problem, ...]:
    """The fits of some tables: whole, centred within environments, and without each of these."""
    found = []
    for name in group:
        size = len(np.unique(_table(name).environment))
        found += [Problem(name), Problem(name, centred=True)]
        found += [Problem(name, held_out=place) for place in range(size)]
    return tuple(found)


@functools.cache
def moments(problem: Problem) -> Moments:
    """The moments of a problem in double precision.

    Inputs are in standard deviations of the rows that train and have their mean subtracted, as has
    the label, whose unit is its standard deviation over all rows.
    """
    table = _table(problem.table)
    x, y = table.x.to_numpy(float), table.y.astype(float)
    _, owners = np.unique(table.environment, return_inverse=True)
    z, counts = np.column_stack([x, y]), np.bincount(owners)
    if problem.centred:
        means = np.stack([z[owners == place].mean(0) for place in range(len(counts))])
        z = z - means[owners]
    trains = owners != problem.held_out
    scale = np.append(z[trains, :-1].std(0), z[:, -1].std())
    z = np.column_stack([(z - z[trains].mean(0)) / scale, np.ones(len(z))])
    parts = [z[owners == place] for place in range(len(counts))]
    second = np.stack([part.T @ part / len(part) for part in parts])
    shares = np.where(np.arange(len(counts)) == problem.held_out, 0, counts)
    return Moments(second, shares / shares.sum())


def cell(group: tuple[str, ...], steps: int) -> Callable[..., Trace]:
    """A cell of HeteroSGD on u * u - v * v, one environment a step, that records mean weights.

    Its axis `problem` counts those of the group, in one program: smaller tables have further
    environments that are never drawn and further inputs that are zero.
    """
    from causal_sgd.supervised import worlds

    every = _padded(group)
    second, shares = (np.stack(part) for part in zip(*every, strict=True))
    factory = worlds.from_moments(second.reshape(-1, *second.shape[2:]))

    def run(key: Key, *, problem: int | Array, learning_rate: float | Array) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd import training
        from causal_sgd.supervised import measurements, models

        chosen = jnp.asarray(problem, int)

        def world(key: Key) -> LinearWorld:
            whole = cast("LinearWorld", factory(key))
            return whole._replace(
                mixing=whole.mixing.reshape(*shares.shape, *whole.mixing.shape[1:])[chosen],
                means=whole.means.reshape(*shares.shape, -1)[chosen],
                probabilities=jnp.asarray(shares, float)[chosen],
            )

        algorithm = training.sgd(
            world=world,
            sampler=training.samplers.hetero(batch_size=1),
            measurement=measurements.moments(),
            model=models.hadamard(dim=second.shape[-1] - 2, signed=True, init_scale=INIT_SCALE),
            optimizer=optax.sgd(learning_rate),
        )
        watched = {"weights": lambda snapshot: snapshot.estimate}
        trace = training.run(
            key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=EVERY
        )
        return training.time_average(trace, after=AVERAGED)

    return run


def pooled(problem: Problem) -> np.ndarray:
    """The weights [p] of least squares."""
    found = moments(problem)
    second, cross = np.tensordot(found.shares, found.inputs, 1), found.shares @ found.cross
    return np.linalg.solve(second, cross)


def lasso(problem: Problem, learning_rate: float) -> np.ndarray:
    """The weights [p] of the Lasso of heterogeneity."""
    from causal_sgd.theory import sparse

    (group,) = (group for group in GROUPS if problem.table in group)
    second, shares = _padded(group)[problems(group).index(problem)]
    found = sparse.heterogeneity_lasso(
        second[:, :-2, :-2],
        second[:, :-2, -2],
        learning_rate=learning_rate,
        probabilities=shares,
        signed=True,
    )
    return np.asarray(found.estimate, float)[: len(columns(problem.table))]


def held_out_error(problem: Problem, weights: np.ndarray) -> np.ndarray:
    """Mean squared residuals [...] of weights [..., p] in the environment that did not train.

    In units of the variance of the label over all rows.
    """
    second = moments(problem).second[problem.held_out]
    size = weights.shape[:-1]
    residual = np.concatenate([weights, np.full((*size, 1), -1.0), np.zeros((*size, 1))], -1)
    return np.einsum("...i,ij,...j->...", residual, second, residual)


def outlook(problem: Problem) -> Outlook:
    """The pull on every input from the solution without it, by environment, and what follows.

    Input i is pulled by b_e = E_e x_i r of the residuals r. Near zero its weight u^2 has the
    exponent E log|1 + learning_rate b_e|, with the sign of the mean pull, from whose first root
    the input would be lost, by itself. Full gradients move weights w by the matrix 1 - 2
    learning_rate |w| S, whose largest eigenvalue gives the stable step.
    """
    found = moments(problem)
    second, cross = np.tensordot(found.shares, found.inputs, 1), found.shares @ found.cross
    dissent, threshold = [], []
    for place in range(len(cross)):
        others = np.delete(np.arange(len(cross)), place)
        weights = np.zeros(len(cross))
        weights[others] = np.linalg.solve(second[np.ix_(others, others)], cross[others])
        pull = (found.cross - found.inputs @ weights)[:, place]
        pull = pull * np.sign(found.shares @ pull)
        dissent.append(found.shares @ (pull < 0))
        exponents = np.log(np.abs(1 + STEPS[:, None] * pull[None])) @ found.shares
        below = np.flatnonzero(exponents < 0)
        threshold.append(STEPS[below[0]] if len(below) else np.inf)
    size = np.sqrt(np.abs(pooled(problem)))
    top = np.linalg.eigvalsh(size[:, None] * second * size[None, :])[-1]
    return Outlook(np.array(dissent), np.array(threshold), float(1 / top))


@functools.cache
def _padded(group: tuple[str, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Moments [E, q, q] and shares [E] of all problems of a group, of common shapes."""
    every = [moments(problem) for problem in problems(group)]
    size = max(len(each.shares) for each in every)
    dim = max(each.second.shape[-1] for each in every) - 2
    found = []
    for each in every:
        count, inputs = len(each.shares), each.second.shape[-1] - 2
        second, shares = np.zeros((size, dim + 2, dim + 2)), np.zeros(size)
        places = np.append(np.arange(inputs), [dim, dim + 1])
        second[:count, places[:, None], places[None, :]] = each.second
        second[:, -1, -1], shares[:count] = 1, each.shares
        found.append((second, shares))
    return found
