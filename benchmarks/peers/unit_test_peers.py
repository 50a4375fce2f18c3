"""One job of the invariance unit tests, as users of PyTorch write it."""

from __future__ import annotations

import importlib
from time import perf_counter
from typing import Any

import numpy as np

__all__ = ["torch_unit_test"]

WARM_UP = 2  # steps before the clock starts


def torch_unit_test(
    x: np.ndarray,
    y: np.ndarray,
    *,
    method: str,
    learning_rate: float,
    decay: float,
    strength: float,
    steps: int,
) -> float:
    """Train by autograd on all examples, and return the seconds of a step.

    Args:
        x: inputs, [E, n, p].
        y: labels [E, n]: -1 and 1 for a logistic loss, other numbers for a squared one.
        method: "ERM", "Oracle" (the same work), "IRMv1", "ANDMask" or "IGA".
        learning_rate: of Adam, or of gradient descent (ANDMask).
        decay: of the weights.
        strength: lambda of IRMv1, tau of ANDMask, or the penalty of IGA.
        steps: that are timed.
    """
    torch = importlib.import_module("torch")
    logistic = bool(np.isin(y, (-1, 1)).all())
    loss = torch.nn.BCEWithLogitsLoss() if logistic else torch.nn.MSELoss()
    targets = (y + 1) / 2 if logistic else y
    environments = [
        (torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)[:, None])
        for a, b in zip(x, targets, strict=True)
    ]
    network = torch.nn.Linear(x.shape[2], 1)
    params = list(network.parameters())
    kind = torch.optim.SGD if method == "ANDMask" else torch.optim.Adam
    optimizer = kind(params, lr=learning_rate, weight_decay=decay)

    def penalised() -> Any:
        """The objective of all methods but ANDMask."""
        risks, penalty, gradients = [], 0.0, []
        for a, b in environments:
            if method == "IRMv1":
                scale = torch.ones(1, requires_grad=True)
                shift = torch.zeros(1, requires_grad=True)
                risk = loss(network(a) * scale + shift, b)
                slopes = torch.autograd.grad(risk, (scale, shift), create_graph=True)
                penalty = penalty + sum(slope.pow(2).sum() for slope in slopes)
            else:
                risk = loss(network(a), b)
            if method == "IGA":
                gradients.append(torch.autograd.grad(risk, params, create_graph=True))
            risks.append(risk)
        mean = torch.stack(risks).mean()
        if method == "IRMv1":
            return (1 - strength) * mean + strength * penalty
        if method == "IGA":
            for parts in zip(*gradients, strict=True):
                every = torch.stack(parts)
                penalty = penalty + (every - every.mean(0, keepdim=True)).pow(2).sum()
            return mean + strength * penalty
        return mean

    def masked() -> None:
        gradients = [torch.autograd.grad(loss(network(a), b), params) for a, b in environments]
        for parameter, *parts in zip(params, *gradients, strict=True):
            every = torch.stack(parts)
            if parameter.ndim > 1:
                every = every / every.flatten(1).norm(dim=1)[:, None, None]
            agree = every.sign().sum(0).abs() > strength * len(parts)
            parameter.grad = agree * every.mean(0)

    def train(number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad()
            if method == "ANDMask":
                masked()
            else:
                penalised().backward()
            optimizer.step()

    train(WARM_UP)
    begin = perf_counter()
    train(steps)
    return (perf_counter() - begin) / steps
