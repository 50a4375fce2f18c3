"""Estimators as plain loops in NumPy and double precision, from examples or from moments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.stats

from causal_sgd.supervised._moments import MomentData, Moments


def drawn(
    seed: int, *, dim: int, sizes: tuple[int, ...] = (60, 80), shifts: float = 0.5
) -> list[np.ndarray]:
    """Examples [n, p + 1] of each environment, the label last, of a linear model.

    Some inputs come before the label and some after it; both their noises and their means change.
    """
    generator = np.random.default_rng(seed)
    weights = np.tril(generator.normal(size=(dim + 1, dim + 1)), -1) * 0.6
    place = dim // 2
    data = []
    for size in sizes:
        scales = generator.uniform(0.5, 2, dim + 1)
        means = shifts * generator.normal(size=dim + 1)
        scales[place], means[place] = 1, 0.3
        noise = generator.normal(size=(size, dim + 1)) * scales + means
        values = np.linalg.solve(np.eye(dim + 1) - weights, noise.T).T
        data.append(np.column_stack([np.delete(values, place, 1), values[:, place]]))
    return data


def as_data(data: list[np.ndarray]) -> MomentData:
    """The moments of examples, as a measurement keeps them."""
    ones = [np.column_stack([rows, np.ones(len(rows))]) for rows in data]
    second = np.stack([rows.T @ rows / len(rows) for rows in ones])
    counts = np.array([len(rows) for rows in data], float)
    return MomentData(Moments(jnp.asarray(second, float), jnp.asarray(counts, float)))


def as_world(data: list[np.ndarray], **members: Any) -> Any:
    """What an estimator reads of the world."""
    dim = data[0].shape[1] - 1
    return SimpleNamespace(
        probabilities=jnp.full(len(data), 1 / len(data)),
        causal=jnp.arange(dim) < dim // 2,
        unscramble=jnp.eye(dim),
        **members,
    )


def subsets(dim: int) -> Iterator[list[int]]:
    """All subsets of the inputs, in the order of their numbers."""
    for number in range(2**dim):
        yield [index for index in range(dim) if number >> index & 1]


def least_squares(data: list[np.ndarray], chosen: list[int], intercept: bool) -> np.ndarray:
    """The weights [p] and the intercept of pooled least squares on some inputs."""
    rows = np.concatenate(data)
    columns = [rows[:, chosen], np.ones((len(rows), 1))] if intercept else [rows[:, chosen]]
    design = np.concatenate(columns, 1)
    result = np.zeros(rows.shape[1])
    places = [*chosen, rows.shape[1] - 1] if intercept else chosen
    result[places] = np.linalg.lstsq(design, rows[:, -1])[0]
    return result


def with_constant(data: list[np.ndarray], intercept: bool) -> list[np.ndarray]:
    """Examples with a first input that is one, if there is an intercept."""
    if not intercept:
        return data
    return [np.column_stack([np.ones(len(rows)), rows]) for rows in data]


def eills_loop(
    data: list[np.ndarray], gamma: float, penalty: float = 0.0, intercept: bool = False
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The values of EILLS on all subsets, and the weights of each, the constant's first."""
    every = subsets(data[0].shape[1] - 1)
    each = [eills_of_set(data, chosen, gamma, penalty, intercept) for chosen in every]
    return np.array([value for value, _ in each]), [weights for _, weights in each]


def eills_of_set(
    data: list[np.ndarray],
    chosen: list[int],
    gamma: float,
    penalty: float = 0.0,
    intercept: bool = False,
) -> tuple[float, np.ndarray]:
    """The value of EILLS on a set, but for E y^2 / 2, and the weights, the constant's first."""
    total, dim = sum(map(len, data)), data[0].shape[1] - 1
    held = [0, *(index + 1 for index in chosen)] if intercept else chosen
    a, b, c = np.zeros((len(held), len(held))), np.zeros(len(held)), 0.0
    for rows in with_constant(data, intercept):
        x, y, share = rows[:, held], rows[:, -1], len(rows) / total
        xx, xy = x.T @ x / len(x), x.T @ y / len(x)
        a += share * (xx + gamma * xx @ xx)
        b += share * (xy + gamma * xx @ xy)
        c += share * gamma * xy @ xy
    solved = np.linalg.solve(a, b) if held else b
    weights = np.zeros(dim + int(intercept))
    weights[held] = solved
    return c / 2 - b @ solved / 2 + penalty * len(chosen), weights


def fair_loop(
    data: list[np.ndarray], gamma: float, penalty: float = 0.0, intercept: bool = False
) -> np.ndarray:
    """The values of FAIR with linear functions on all subsets."""
    every = subsets(data[0].shape[1] - 1)
    return np.array([fair_of_set(data, chosen, gamma, penalty, intercept) for chosen in every])


def fair_of_set(
    data: list[np.ndarray],
    chosen: list[int],
    gamma: float,
    penalty: float = 0.0,
    intercept: bool = False,
) -> float:
    """The value of FAIR with linear functions on a set."""
    total, fit = sum(map(len, data)), least_squares(data, chosen, intercept)
    value = penalty * len(chosen)
    for rows in data:
        share = len(rows) / total
        residual = rows[:, -1] - rows[:, :-1] @ fit[:-1] - fit[-1]
        design = np.column_stack([rows[:, chosen], np.ones((len(rows), int(intercept)))])
        critic = design @ np.linalg.lstsq(design, residual)[0]
        value += share * np.mean(residual**2) / 2
        value += share * gamma * np.mean(residual * critic - critic**2 / 2)
    return float(value)


def greedy_loop(value: Callable[[list[int]], float], dim: int) -> list[int]:
    """The better end of two searches that change one input at a time, from no and all inputs."""
    ends = []
    for chosen in (set[int](), set(range(dim))):
        least = value(sorted(chosen))
        while True:
            found = [value(sorted(chosen ^ {index})) for index in range(dim)]
            if min(found) >= least:
                break
            least, chosen = min(found), chosen ^ {int(np.argmin(found))}
        ends.append((least, sorted(chosen)))
    return min(ends)[1]


def icp_loop(
    data: list[np.ndarray], correction: str = "bonferroni", intercept: bool = True
) -> np.ndarray:
    """ICP's p-values of all subsets, from residuals of examples."""
    size, pvalues = len(data), []
    for chosen in subsets(data[0].shape[1] - 1):
        fit = least_squares(data, chosen, intercept)
        residuals = [rows[:, -1] - rows[:, :-1] @ fit[:-1] - fit[-1] for rows in data]
        least = 1.0
        for index, inside in enumerate(residuals):
            others = np.concatenate([other for k, other in enumerate(residuals) if k != index])
            ratio = inside.var(ddof=1) / others.var(ddof=1)
            below = scipy.stats.f.cdf(ratio, len(inside) - 1, len(others) - 1)
            means = scipy.stats.ttest_ind(inside, others, equal_var=False).pvalue
            least = min(least, means, 2 * min(below, 1 - below))
        factor, offset = {
            "bonferroni": (2 * (size - 1), 0),
            "environments": (2 * size, 0),
            "environments_minus_one": (2 * size, 1),
        }[correction]
        pvalues.append(min(1.0, factor * least - offset))
    return np.array(pvalues)


def coefficients_loop(data: list[np.ndarray], intercept: bool = True) -> np.ndarray:
    """The p-values of equal coefficients in all environments on every subset."""
    pvalues = []
    for chosen in subsets(data[0].shape[1] - 1):
        if not chosen:
            pvalues.append(1.0)
            continue
        slopes, precisions, degrees = [], [], 0
        for rows in data:
            values = rows - rows.mean(0) * int(intercept)
            x, y = values[:, chosen], values[:, -1]
            slope = np.linalg.lstsq(x, y)[0]
            free = len(rows) - len(chosen) - int(intercept)
            degrees += free
            slopes.append(slope)
            precisions.append(x.T @ x / (np.sum((y - x @ slope) ** 2) / free))
        both = zip(precisions, slopes, strict=True)
        mean = np.linalg.solve(sum(precisions), sum(a @ b for a, b in both))
        wald = sum((b - mean) @ a @ (b - mean) for a, b in zip(precisions, slopes, strict=True))
        count = (len(data) - 1) * len(chosen)
        pvalues.append(scipy.stats.f.sf(wald / count, count, degrees))
    return np.array(pvalues)


def members(masks: Any) -> list[list[int]]:
    """The inputs of sets [N, p]."""
    return [list(itertools.compress(range(len(mask)), np.asarray(mask))) for mask in masks]
