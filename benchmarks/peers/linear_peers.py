"""Peers of invariant linear regression: full-batch training on several environments, and EILLS.

Each trains on the same examples with Adam, from weights of zero, and returns the weights, so that
peers and the engine must agree to rounding: `tests/test_peers_linear.py`.
"""

from __future__ import annotations

import importlib
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "LinearProblem",
    "LinearResult",
    "numpy_eills",
    "numpy_moments",
    "numpy_rows",
    "torch_rows",
]

WARM_UP = 2  # steps before the clock starts


class LinearProblem(NamedTuple):
    """Mean squared residuals R_e and a penalty, on the scale of the method's authors.

    The objective is mean R ("erm"), mean R + weight mean (dR_e/dscale)^2 ("irmv1") or mean R +
    weight var R ("vrex"), with means over the environments.
    """

    x: np.ndarray  # [E, n, p]
    y: np.ndarray  # [E, n]
    method: str
    weight: float
    learning_rate: float
    steps: int


class LinearResult(NamedTuple):
    """What a peer reports."""

    weights: np.ndarray  # [p]
    seconds: float  # of a step, without the first ones


def numpy_moments(problem: LinearProblem) -> LinearResult:
    """A NumPy loop over steps that reads second moments only, in float64."""
    number = problem.x.shape[1]
    inputs = problem.x.transpose(0, 2, 1) @ problem.x / number
    cross = (problem.x.transpose(0, 2, 1) @ problem.y[:, :, None])[..., 0] / number
    labels = np.mean(problem.y**2, 1)

    def derivatives(weights: np.ndarray) -> tuple[np.ndarray, ...]:
        applied = inputs @ weights
        risks = applied @ weights - 2 * cross @ weights + labels
        return (
            risks,
            2 * (applied - cross),
            2 * (applied - cross) @ weights,
            4 * applied - 2 * cross,
        )

    return _trained(problem, derivatives)


def numpy_rows(problem: LinearProblem) -> LinearResult:
    """A NumPy loop over steps that reads all examples in each step, in float64."""
    x, y, number = problem.x.astype(float), problem.y.astype(float), problem.x.shape[1]

    def derivatives(weights: np.ndarray) -> tuple[np.ndarray, ...]:
        predictions = x @ weights
        residuals = predictions - y
        slopes = np.einsum("en,enp->ep", residuals, x, optimize=True) * 2 / number
        scale = 2 * np.mean(residuals * predictions, 1)
        curved = np.einsum("en,enp->ep", residuals + predictions, x, optimize=True) * 2 / number
        return np.mean(residuals**2, 1), slopes, scale, curved

    return _trained(problem, derivatives)


def _trained(problem: LinearProblem, derivatives: Any) -> LinearResult:
    """Adam on R_e [E], dR_e/dw [E, p], D_e = dR_e/dscale [E] and dD_e/dw [E, p]."""
    weights = np.zeros(problem.x.shape[2])
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    begin = 0.0
    for step in range(problem.steps + WARM_UP):
        if step == WARM_UP:
            begin = perf_counter()
            weights, first, second = (np.zeros_like(weights) for _ in range(3))
        risks, slopes, scale, curved = derivatives(weights)
        gradient = slopes.mean(0)
        if problem.method == "irmv1":
            gradient = gradient + problem.weight * 2 * (scale @ curved) / len(risks)
        elif problem.method == "vrex":
            spread = risks - risks.mean()
            gradient = gradient + problem.weight * 2 * (spread @ slopes) / len(risks)
        count = max(step - WARM_UP, 0) + 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = np.sqrt(second / (1 - 0.999**count)) + 1e-8
        weights = weights - problem.learning_rate * first / (1 - 0.9**count) / size
    return LinearResult(weights, (perf_counter() - begin) / problem.steps)


def torch_rows(problem: LinearProblem) -> LinearResult:
    """PyTorch as its users write these methods: autograd on all examples, and Adam."""
    torch = importlib.import_module("torch")
    environments = [
        (torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None])
        for x, y in zip(problem.x, problem.y, strict=True)
    ]
    loss = torch.nn.MSELoss()

    def train(steps: int) -> Any:
        weights = torch.zeros(problem.x.shape[2], 1, requires_grad=True)
        optimizer = torch.optim.Adam([weights], lr=problem.learning_rate)
        for _ in range(steps):
            risks, penalty = [], 0.0
            for x, y in environments:
                if problem.method == "irmv1":
                    scale = torch.ones(1, requires_grad=True)
                    risk = loss(x @ weights * scale, y)
                    (slope,) = torch.autograd.grad(risk, scale, create_graph=True)
                    penalty = penalty + slope.pow(2).sum() / len(environments)
                else:
                    risk = loss(x @ weights, y)
                risks.append(risk)
            every = torch.stack(risks)
            if problem.method == "vrex":
                penalty = every.var(unbiased=False)
            optimizer.zero_grad()
            (every.mean() + problem.weight * penalty).backward()
            optimizer.step()
        return weights.detach().numpy()[:, 0]

    train(WARM_UP)
    begin = perf_counter()
    weights = train(problem.steps)
    return LinearResult(weights, (perf_counter() - begin) / problem.steps)


def numpy_eills(second: np.ndarray, gamma: float) -> tuple[np.ndarray, float]:
    """EILLS by a NumPy loop over all subsets, and its seconds.

    Args:
        second: moments of (x, y) in each environment, [E, p + 1, p + 1].
        gamma: weight of the invariance.

    Returns:
        The weights [p] of the least value, and the time of the search.
    """
    begin = perf_counter()
    inputs, cross = second[:, :-1, :-1], second[:, :-1, -1]
    dim = inputs.shape[1]
    best, result = 0.0, np.zeros(dim)
    constant = gamma / 2 * np.mean(cross**2, 0)
    for number in range(1, 2**dim):
        chosen = [index for index in range(dim) if number >> index & 1]
        x, y = inputs[:, chosen][:, :, chosen], cross[:, chosen]
        matrix = np.mean(x + gamma * x @ x, 0)
        vector = np.mean(y + gamma * (x @ y[:, :, None])[..., 0], 0)
        weights = np.linalg.solve(matrix, vector)
        value = np.sum(constant[chosen]) - vector @ weights / 2
        if value < best:
            best = float(value)
            result = np.zeros(dim)
            result[chosen] = weights
    return result, perf_counter() - begin
