"""HeteroSGD of a gated network on coloured digits, as users of PyTorch write it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

__all__ = ["BATCHES", "NetworkProblem", "NetworkResult", "torch_network"]

BATCHES = ("drawn", "drawn, DataLoader", "rows", "rows, DataLoader")
"""How a batch comes about: labels and colours drawn anew, or rows of fixed arrays; each by
indexing tensors of the environment, or by a DataLoader."""


class NetworkProblem(NamedTuple):
    """Images whose colour agrees with the label as the environment says, and the training."""

    images: np.ndarray  # [N, m]
    bits: np.ndarray  # [N], -1 and 1
    rows: np.ndarray  # [E, n, m + 1] the inputs of fixed environments
    labels: np.ndarray  # [E, n] their labels
    test_images: np.ndarray  # [t, m]
    test_bits: np.ndarray  # [t]
    label_flip: float  # how often a label differs from the bit
    colour_flips: tuple[float, ...]  # how often the colour differs from the label, [E]
    test_flips: tuple[float, ...]  # the same in the environments of the test, [T]
    hidden: int
    batch: int
    start: float  # initial gates
    steps: int
    record_every: int


class NetworkResult(NamedTuple):
    """A run."""

    accuracies: np.ndarray  # [T] at the end
    seconds: float


def torch_network(
    problem: NetworkProblem, batches: str, *, learning_rate: float, seed: int, threads: int
) -> NetworkResult:
    """Train one network, and judge it in the environments of the test every so many steps.

    Args:
        problem: what is trained.
        batches: one of `BATCHES`.
        learning_rate: of SGD.
        seed: of the run.
        threads: of PyTorch's operations.
    """
    torch = importlib.import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    try:
        return _trained(torch, problem, batches, learning_rate)
    finally:
        torch.set_num_threads(before)


def _trained(
    torch: Any, problem: NetworkProblem, batches: str, learning_rate: float
) -> NetworkResult:
    network = _network(torch, problem)
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    loss = torch.nn.SoftMarginLoss()
    next_batch = _batches(torch, problem, batches)
    tests = _tests(torch, problem)
    begin, accuracies = perf_counter(), np.zeros(0)
    for step in range(1, problem.steps + 1):
        x, y = next_batch()
        optimizer.zero_grad()
        loss(network(x), y).backward()
        optimizer.step()
        if step % problem.record_every == 0 or step == problem.steps:
            with torch.no_grad():
                accuracies = np.array(
                    [((network(x) > 0) == (y > 0)).float().mean().item() for x, y in tests]
                )
    return NetworkResult(accuracies, perf_counter() - begin)


def _network(torch: Any, problem: NetworkProblem) -> Any:
    """One hidden layer behind a gate for every input, with the initial values of the engine."""
    nn, dim = torch.nn, problem.images.shape[1] + 1

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates = nn.Parameter(torch.full((dim,), problem.start))
            self.first = nn.Linear(dim, problem.hidden)
            self.last = nn.Linear(problem.hidden, 1)
            nn.init.normal_(self.first.weight, std=(2 / dim) ** 0.5)
            nn.init.normal_(self.last.weight, std=problem.hidden**-0.5)
            nn.init.zeros_(self.first.bias)
            nn.init.zeros_(self.last.bias)

        def forward(self, x: Any) -> Any:
            return self.last(torch.relu(self.first(x * self.gates**2))).squeeze(-1)

    return Gated()


def _batches(torch: Any, problem: NetworkProblem, batches: str) -> Callable[[], tuple[Any, Any]]:
    """A function that returns the inputs and labels of a batch from one random environment."""
    size, environments = problem.batch, len(problem.colour_flips)
    images, bits, rows, labels = _tensors(
        torch, problem.images, problem.bits, problem.rows, problem.labels
    )

    def drawn() -> tuple[Any, Any]:
        flip = problem.colour_flips[int(torch.randint(environments, ()))]
        chosen = torch.randint(len(images), (size,))
        y = bits[chosen]
        y = torch.where(torch.rand(size) < problem.label_flip, -y, y)
        colour = torch.where(torch.rand(size) < flip, -y, y)
        return torch.cat([images[chosen], colour[:, None]], 1), y

    def indexed() -> tuple[Any, Any]:
        environment = int(torch.randint(environments, ()))
        chosen = torch.randint(rows.shape[1], (size,))
        return rows[environment][chosen], labels[environment][chosen]

    if batches in ("drawn", "rows"):
        return drawn if batches == "drawn" else indexed
    data = torch.utils.data

    class Coloured(data.Dataset):
        def __init__(self, flip: float) -> None:
            self.flip = flip

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, place: int) -> tuple[Any, Any]:
            y = -bits[place] if torch.rand(()) < problem.label_flip else bits[place]
            colour = -y if torch.rand(()) < self.flip else y
            return torch.cat([images[place], colour[None]]), y

    sets = (
        [Coloured(flip) for flip in problem.colour_flips]
        if batches.startswith("drawn")
        else [data.TensorDataset(*pair) for pair in zip(rows, labels, strict=True)]
    )
    endless = [
        _endless(data.DataLoader(each, batch_size=size, shuffle=True, drop_last=True))
        for each in sets
    ]
    return lambda: next(endless[int(torch.randint(environments, ()))])


def _endless(loader: Any) -> Iterator[tuple[Any, Any]]:
    while True:
        yield from loader


def _tests(torch: Any, problem: NetworkProblem) -> list[tuple[Any, Any]]:
    """Inputs and labels of every environment of the test, with labels and colours of this run."""
    images, bits = _tensors(torch, problem.test_images, problem.test_bits)
    found = []
    for flip in problem.test_flips:
        y = torch.where(torch.rand(len(bits)) < problem.label_flip, -bits, bits)
        colour = torch.where(torch.rand(len(bits)) < flip, -y, y)
        found.append((torch.cat([images, colour[:, None]], 1), y))
    return found


def _tensors(torch: Any, *arrays: np.ndarray) -> list[Any]:
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]
