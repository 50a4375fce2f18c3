"""SGD on finite data sets as people write it in NumPy and PyTorch, to measure `fixed_design` against.

Several runs of HeteroSGD for matrix sensing share the measurements X_ei of E environments with n examples each. In step t
run r sees environment `order[t, r]`: all its examples, or a mini-batch of `batch_size` of them drawn anew without
replacement. The factor follows

    U <- U - learning_rate * (1/m) sum_i r_i sym(X_i) U,    r_i = <X_i, UU'> - y_i.

Both peers are given what makes the engine fast: float32, the packed coordinates of the symmetric parts, p = d (d + 1) / 2
of d^2 numbers, and for full batches one product of matrices for all the runs in an environment. Each example of a
mini-batch is fetched once and read twice. BLAS and PyTorch take the threads that they find.
"""

import importlib
import time
from typing import Any, NamedTuple

import numpy as np

__all__ = ["DesignResult", "numpy_design", "torch_design"]


class DesignResult(NamedTuple):
    """What a peer hands back.

    Attributes:
        factors: Final factors, shape `(runs, d, d)`.
        seconds_per_step: Wall time of one step of all the runs together, in seconds, over the last four fifths of them.
    """

    factors: np.ndarray
    seconds_per_step: float


def numpy_design(
    *,
    design: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    init_scale: float,
    learning_rate: float,
    batch_size: int | None = None,
    seed: int = 0,
) -> DesignResult:
    """Simulates the runs with NumPy.

    Mini-batches go run by run: the gathered rows of one run (0.5 MB for 100 of d = 50) stay in the cache for their second use.

    Args:
        design: Packed measurements, shape `(E, n, p)`, single precision.
        labels: Shape `(E, n)`, single precision.
        order: The environment of each step and run, shape `(steps, runs)`, at least 5 steps.
        init_scale: The factors start at this times the identity.
        learning_rate: Step size, for the loss `1/(4m) sum_i r_i^2`.
        batch_size: Examples a step and run; None for all n.
        seed: Of the mini-batches.

    Returns:
        The final factors, and the time per step of all runs.

    Raises:
        ValueError: If there are fewer than 5 steps, or `batch_size` is not between 1 and n.
    """
    runs, size, dim = _check(design, order, batch_size)
    rng = np.random.default_rng(seed)
    row, column = np.triu_indices(dim)
    scale = np.where(row == column, 1, np.sqrt(2)).astype(np.float32)
    factors = np.tile(np.eye(dim, dtype=np.float32) * np.float32(init_scale), (runs, 1, 1))
    matrices = np.empty((runs, dim, dim), np.float32)
    sums = np.empty((runs, design.shape[2]), np.float32)
    rows = np.empty((size, design.shape[2]), np.float32)
    update = np.empty_like(factors)
    rate = np.float32(learning_rate / size)
    start = 0.0
    for t, environments in enumerate(order):
        if t == len(order) // 5:
            start = time.perf_counter()
        np.matmul(factors, factors.swapaxes(1, 2), out=matrices)
        packed = matrices[:, row, column]
        packed *= scale
        if batch_size is None:
            for environment in np.unique(environments):
                members = np.flatnonzero(environments == environment)
                residuals = packed[members] @ design[environment].T
                residuals -= labels[environment]
                sums[members] = residuals @ design[environment]
        else:
            for run, environment in enumerate(environments):
                chosen = rng.choice(design.shape[1], size, replace=False, shuffle=False)
                np.take(design[environment], chosen, axis=0, out=rows, mode="clip")
                np.matmul(rows @ packed[run] - labels[environment, chosen], rows, out=sums[run])
        sums /= scale
        matrices[:, row, column] = sums
        matrices[:, column, row] = sums
        np.matmul(matrices, factors, out=update)
        update *= rate
        factors -= update
    return DesignResult(factors, (time.perf_counter() - start) / (len(order) - len(order) // 5))


def torch_design(
    *,
    design: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    init_scale: float,
    learning_rate: float,
    batch_size: int | None = None,
    seed: int = 0,
    together: int = 1,
) -> DesignResult:
    """Simulates the runs with PyTorch on the CPU, the gradient written out.

    Args:
        design: See `numpy_design`, and so on for all the others.
        labels: Shape `(E, n)`.
        order: The environment of each step and run, shape `(steps, runs)`.
        init_scale: The factors start at this times the identity.
        learning_rate: Step size.
        batch_size: Examples a step and run; None for all n.
        seed: Of the mini-batches.
        together: Runs whose mini-batches are gathered and multiplied at once.

    Returns:
        The final factors, and the time per step of all runs.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If there are fewer than 5 steps, or `batch_size` is not between 1 and n.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError("the PyTorch peers need PyTorch: pip install torch") from error
    runs, size, dim = _check(design, order, batch_size)
    generator = torch.Generator().manual_seed(seed)
    data, targets = torch.from_numpy(design), torch.from_numpy(labels)  # no copies
    num_examples, width = design.shape[1:]
    flat, flat_targets = data.reshape(-1, width), targets.reshape(-1)
    row, column = torch.triu_indices(dim, dim)
    place, mirror = row * dim + column, column * dim + row
    scale = torch.where(row == column, 1.0, 2.0**0.5)
    factors = (init_scale * torch.eye(dim)).repeat(runs, 1, 1)
    matrices = torch.empty(runs, dim, dim)
    sums = torch.empty(runs, width)
    buffer = torch.empty(min(together, runs) * size, width)
    start = 0.0
    with torch.no_grad():
        for t, environments in enumerate(torch.from_numpy(order).long()):
            if t == len(order) // 5:
                start = time.perf_counter()
            torch.bmm(factors, factors.mT, out=matrices)
            packed = matrices.view(runs, -1).index_select(1, place) * scale
            if batch_size is None:
                for environment in environments.unique():
                    members = (environments == environment).nonzero()[:, 0]
                    residuals = torch.addmm(targets[environment], packed[members], data[environment].T, beta=-1)
                    sums[members] = residuals @ data[environment]
            else:
                numbers = torch.rand(runs, num_examples, generator=generator)
                chosen = numbers.topk(size, dim=1, sorted=False).indices + environments[:, None] * num_examples
                for first in range(0, runs, together):
                    some = chosen[first : first + together]
                    rows = buffer[: some.numel()]
                    torch.index_select(flat, 0, some.reshape(-1), out=rows)
                    rows = rows.view(len(some), size, width)
                    residuals = torch.baddbmm(
                        flat_targets[some][:, :, None], rows, packed[first : first + together, :, None], beta=-1
                    )
                    torch.bmm(residuals.mT, rows, out=sums[first : first + together, None])
            sums /= scale
            square = matrices.view(runs, -1)
            square[:, place] = sums
            square[:, mirror] = sums
            factors.baddbmm_(matrices, factors.clone(), alpha=-learning_rate / size)
        elapsed = time.perf_counter() - start
    return DesignResult(factors.numpy(), elapsed / (len(order) - len(order) // 5))


def _check(design: np.ndarray, order: np.ndarray, batch_size: int | None) -> tuple[int, int, int]:
    """Refuses sizes that make no sense; returns the runs, the examples of a batch and d."""
    if len(order) < 5:
        raise ValueError(f"order must have at least 5 steps (the first ones warm up); got {len(order)}")
    if batch_size is not None and not 1 <= batch_size <= design.shape[1]:
        raise ValueError(f"batch_size must be between 1 and {design.shape[1]}; got {batch_size}")
    dim = int((8 * design.shape[2] + 1) ** 0.5 - 1) // 2
    return order.shape[1], batch_size or design.shape[1], dim
