"""Simulations of scalar maps in plain NumPy, independent of the package, to compare with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rule = Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray], int], np.ndarray]
"""(gradient, u, memory, update from 1) -> the step divided by the learning rate."""

__all__ = [
    "Rule",
    "deviation",
    "local_rounds",
    "optimized_levels",
    "optimizer_rule",
    "scalar_map",
    "traced_complement",
]


def scalar_map(
    rate: float, spread: np.ndarray, mean: np.ndarray, start: np.ndarray, *, draws: int, steps: int
) -> np.ndarray:
    """The steps [n, draws] after which u -> (1 + eta (mu +- M - u^2)) u is lost, -1 for never.

    A simulation of its own, with NumPy's random numbers.

    Args:
        rate: eta.
        spread: M [n].
        mean: mu [n].
        start: u [n].
        draws: independent orders of the environments.
        steps: length of the runs.
    """
    random = np.random.default_rng(0)
    shape = (len(start), draws)
    index, u = np.arange(len(start) * draws), np.repeat(start, draws)
    low = 1 + rate * np.repeat(mean - spread, draws)
    high = 1 + rate * np.repeat(mean + spread, draws)
    lost = np.full(index.size, -1)
    for step in range(1, steps + 1):
        u *= np.where(random.random(len(u)) < 0.5, low, high) - rate * u * u
        gone = np.abs(u) > 1e9  # where the loss overflows, a step or two later
        if gone.any():
            lost[index[gone]] = step
            index, u, low, high = index[~gone], u[~gone], low[~gone], high[~gone]
    return lost.reshape(shape)


def optimized_levels(
    rule: Rule,
    spread: np.ndarray,
    *,
    rate: float,
    start: float,
    steps: int,
    every: int,
    draws: int,
    mean: float = 1.0,
    after: float = 0.9,
) -> np.ndarray:
    """The mean of u^2 [n, draws] at the end of runs of an optimiser on one direction.

    The gradient is (u^2 - mu -+ M) u, the sign drawn at every step by NumPy.

    Args:
        rule: the optimiser.
        spread: M [n].
        rate: of the rule.
        start: of u.
        steps: length of the runs.
        every: steps between recorded frames.
        draws: independent orders of the environments.
        mean: mu.
        after: the share of the run that does not count.
    """
    random = np.random.default_rng(0)
    u = np.full((len(spread), draws), start)
    memory = {name: np.zeros_like(u) for name in ("first", "second")}
    frames = []
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, steps + 1):
            signs = random.choice([-1.0, 1.0], size=u.shape)
            gradient = (u * u - mean - signs * spread[:, None]) * u
            u = u - rate * rule(gradient, u, memory, step)
            if step % every == 0 and step >= after * steps:
                frames.append(u * u)
    return np.mean(frames, axis=0)


def optimizer_rule(program: str, *, momentum: float, decay: float) -> Rule:
    """The rule of a program: "linear", "sign", "lion" or "adam", with optax's other numbers."""

    def linear(g: np.ndarray, u: np.ndarray, m: dict[str, np.ndarray], t: int) -> np.ndarray:
        m["first"] = momentum * m["first"] + g
        return (1 - momentum) * m["first"]

    def sign(g: np.ndarray, u: np.ndarray, m: dict[str, np.ndarray], t: int) -> np.ndarray:
        return np.sign(g)

    def lion(g: np.ndarray, u: np.ndarray, m: dict[str, np.ndarray], t: int) -> np.ndarray:
        update = np.sign(0.9 * m["first"] + 0.1 * g)
        m["first"] = 0.99 * m["first"] + 0.01 * g
        return update

    def adam(g: np.ndarray, u: np.ndarray, m: dict[str, np.ndarray], t: int) -> np.ndarray:
        m["first"] = 0.9 * m["first"] + 0.1 * g
        m["second"] = 0.999 * m["second"] + 0.001 * g * g
        scale = np.sqrt(m["second"] / (1 - 0.999**t)) + 1e-8
        return m["first"] / (1 - 0.9**t) / scale + decay * u

    return {"linear": linear, "sign": sign, "lion": lion, "adam": adam}[program]


def local_rounds(
    rate: float,
    spread: float,
    *,
    proximal: float,
    local_steps: int,
    start: float,
    rounds: int,
    draws: int,
    mean: float = 1.0,
) -> np.ndarray:
    """The mean of u^2 [draws] in the last quarter of FedProx with one of two environments a round.

    Args:
        rate: eta.
        spread: M.
        proximal: strength of the pull towards the start of the round.
        local_steps: K.
        start: of u.
        rounds: length of the runs.
        draws: independent orders of the environments.
        mean: mu.
    """
    random = np.random.default_rng(0)
    u, frames = np.full(draws, start), []
    for step in range(rounds):
        anchor, eigenvalue = u, mean + spread * random.choice([-1.0, 1.0], size=draws)
        for _ in range(local_steps):
            u = u - rate * ((u * u - eigenvalue) * u + proximal * (u - anchor))
        if step >= 0.75 * rounds:
            frames.append(u * u)
    return np.mean(frames, axis=0)


def traced_complement(
    rate: float,
    spread: float,
    *,
    mean: float,
    outside: int,
    start: float,
    steps: int,
    draws: int,
) -> np.ndarray:
    """The time average [draws] of |U_perp' U| where the residual's trace drives all directions.

    The mean gradient is (R + tr(R) I / 2) U with R = U U' - A* - A_e: one invariant direction of
    eigenvalue 1, one spurious of mu +- M, and directions outside, all started alike.

    Args:
        rate: eta.
        spread: M.
        mean: mu.
        outside: the number of directions outside the signals.
        start: of every direction.
        steps: length of the runs; the first fifth does not count.
        draws: independent orders of the environments.
    """
    random = np.random.default_rng(0)
    a, v, w = (np.full(draws, start) for _ in range(3))
    total, frames = np.zeros(draws), 0
    for step in range(steps):
        s = mean + spread * random.choice([-1.0, 1.0], size=draws)
        trace = (a * a + v * v + outside * w * w - 1 - s) / 2
        a = a - rate * (a * a - 1 + trace) * a
        v = v - rate * (v * v - s + trace) * v
        w = w - rate * (w * w + trace) * w
        if step >= steps / 5:
            total, frames = total + outside**0.5 * np.abs(w), frames + 1
    return total / frames


def deviation(measured: np.ndarray, expected: np.ndarray) -> float:
    """The difference of two means over seeds [n] and draws [m], in standard errors."""
    variances = [values.var(ddof=1) / len(values) for values in (measured, expected)]
    return float(np.abs(measured.mean() - expected.mean()) / np.sqrt(np.sum(variances)))
