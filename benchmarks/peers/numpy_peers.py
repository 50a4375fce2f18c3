"""The peers in NumPy."""

from functools import partial

import numpy as np

from . import threads
from .problems import Clock, DrawnProblem, FiniteProblem, PeerResult


def numpy_loop(problem: DrawnProblem, *, seed: int) -> PeerResult:
    """Simulates one run with a NumPy loop.

    SFC64 is NumPy's fastest bit generator here (10 % ahead of PCG64). Drawing on two threads, as in
    NumPy's manual, takes 0.6 of the time on one.

    Args:
        problem: What to simulate.
        seed: Seed of all randomness of the run, not negative.
    """
    dim, batch_size = problem.dim, problem.batch_size
    workers = threads.worth(batch_size * dim**2)
    env_rng, *rngs = (
        np.random.Generator(np.random.SFC64(s))
        for s in np.random.SeedSequence(seed).spawn(workers + 1)
    )
    signs = env_rng.choice(
        np.array([-1, 1], np.float32), size=(problem.steps, problem.spurious_rank)
    )
    levels = (problem.mean + problem.spread * signs).astype(np.float32)

    factor = np.eye(dim, problem.rank, dtype=np.float32) * np.float32(problem.init_scale)
    sensing = np.empty((batch_size, dim**2), np.float32)
    draws: list[threads.Task] = [
        partial(rng.standard_normal, out=part, dtype=np.float32)
        for rng, part in zip(rngs, np.array_split(sensing.reshape(-1), workers), strict=True)
    ]
    residual = np.empty((dim, dim), np.float32)
    diagonal = residual.reshape(-1)[:: dim + 1]
    residuals = np.empty(batch_size, np.float32)
    gradient = np.empty((dim, dim), np.float32)
    symmetric = np.empty((dim, dim), np.float32)
    update = np.empty_like(factor)
    rate = np.float32(problem.rate)
    clock = Clock(problem.steps, problem.warmup)
    with threads.parallel(workers) as run_all, np.errstate(over="ignore", invalid="ignore"):
        for t in clock:
            run_all(draws)
            np.matmul(factor, factor.T, out=residual)
            problem.subtract_signals(diagonal, levels[t])
            np.matmul(sensing, residual.reshape(-1), out=residuals)
            np.matmul(residuals, sensing, out=gradient.reshape(-1))
            np.add(gradient, gradient.T, out=symmetric)
            np.matmul(symmetric, factor, out=update)
            update *= rate
            factor -= update
    return PeerResult(factor[None], clock.seconds_per_step)


def numpy_plain(problem: DrawnProblem, *, seed: int) -> PeerResult:
    """Simulates one run with a first-draft NumPy loop: float64, no buffers, no threads.

    Both sums over the measurements are still BLAS products.

    Args:
        problem: What to simulate.
        seed: Seed of all randomness of the run, not negative.
    """
    dim, batch_size, learning_rate = problem.dim, problem.batch_size, problem.learning_rate
    rng = np.random.default_rng(seed)
    factor = problem.init_scale * np.eye(dim, problem.rank)
    clock = Clock(problem.steps, problem.warmup)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in clock:
            signal = np.zeros(dim)
            signal[problem.invariant] = 1
            signal[problem.spurious] = problem.mean + problem.spread * rng.choice(
                [-1, 1], problem.spurious_rank
            )
            sensing = rng.standard_normal((batch_size, dim * dim))
            residuals = sensing @ (factor @ factor.T - np.diag(signal)).ravel()
            gradient = (residuals @ sensing).reshape(dim, dim) / batch_size
            factor = factor - learning_rate * (gradient + gradient.T) / 2 @ factor
    return PeerResult(factor[None], clock.seconds_per_step)


def numpy_design(problem: FiniteProblem, *, seed: int = 0) -> PeerResult:
    """Simulates the runs on finite data sets.

    Mini-batches are processed run by run: the gathered rows of one run (0.5 MB for 100 rows at d =
    50) stay in the cache for their second use.

    Args:
        problem: What to simulate.
        seed: Seed of the mini-batches.
    """
    design, labels = problem.design, problem.labels
    dim, runs, size = problem.dim, problem.runs, problem.size
    rng = np.random.default_rng(seed)
    row, column = np.triu_indices(dim)
    scale = np.where(row == column, 1, np.sqrt(2)).astype(np.float32)
    factors = np.tile(np.eye(dim, dtype=np.float32) * np.float32(problem.init_scale), (runs, 1, 1))
    matrices = np.empty((runs, dim, dim), np.float32)
    sums = np.empty((runs, design.shape[2]), np.float32)
    rows = np.empty((size, design.shape[2]), np.float32)
    update = np.empty_like(factors)
    rate = np.float32(problem.learning_rate / size)
    clock = Clock(len(problem.order), problem.warmup)
    for t in clock:
        environments = problem.order[t]
        np.matmul(factors, factors.swapaxes(1, 2), out=matrices)
        packed = matrices[:, row, column]
        packed *= scale
        if problem.batch_size is None:
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
    return PeerResult(factors, clock.seconds_per_step)
