"""The peers in PyTorch. They import it when called, since only the benchmarks need it."""

import importlib
import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from . import threads
from .problems import Clock, DrawnProblem, FiniteProblem, PeerResult, count_runs


def torch_loop(problem: DrawnProblem, *, seed: int) -> PeerResult:
    """Simulates one run with a PyTorch loop on the CPU.

    The gradient is written out under `no_grad`, as a careful user would. PyTorch fills a tensor
    with normals on one thread, so Python threads fill it in parts (0.6 of the time on one).
    `torch.compile` did not help: it draws its own normals, unvectorised, at 7 times the cost.

    Args:
        problem: What to simulate.
        seed: Seed of all randomness of the run, not negative.

    Raises:
        ImportError: If PyTorch is not installed.
    """
    torch = _import_torch()
    dim, batch_size = problem.dim, problem.batch_size
    workers = threads.worth(batch_size * dim**2)
    env_rng, *rngs = _generators(torch, seed, workers + 1)
    signs = 2 * torch.randint(2, (problem.steps, problem.spurious_rank), generator=env_rng) - 1
    levels = problem.mean + problem.spread * signs.float()

    factor = problem.init_scale * torch.eye(dim, problem.columns)
    sensing = torch.empty(batch_size, dim**2)
    draws: list[threads.Task] = [
        partial(part.normal_, generator=rng)
        for rng, part in zip(rngs, sensing.view(-1).tensor_split(workers), strict=True)
    ]
    residual = torch.empty(dim, dim)
    diagonal = residual.diagonal()
    residuals = torch.empty(batch_size)
    gradient = torch.empty(1, dim**2)
    square = gradient.view(dim, dim)
    clock = Clock(problem.steps, problem.warmup)
    with torch.no_grad(), threads.parallel(workers) as run_all:
        for t in clock:
            run_all(draws)
            torch.mm(factor, factor.T, out=residual)
            problem.subtract_signals(diagonal, levels[t])
            torch.mv(sensing, residual.view(-1), out=residuals)
            torch.mm(residuals[None], sensing, out=gradient)
            factor.addmm_(square + square.T, factor.clone(), alpha=-problem.rate)
    return PeerResult(factor[None].numpy(), clock.seconds_per_step)


def torch_batched(
    problem: DrawnProblem,
    *,
    seeds: Sequence[int],
    slab_bytes: int = 2**25,
    device: str = "cpu",
) -> PeerResult:
    """Simulates many runs at once with batched PyTorch products.

    One generator per thread draws the normals of all runs; all `seeds` together seed them.
    Reproducing a run therefore takes the same `seeds` on the same number of cores, not its own seed
    alone.

    Args:
        problem: What to simulate.
        seeds: One integer per run, not negative and below 2**32.
        slab_bytes: Measurements are drawn and used in slabs of about this size, over all runs.
        device: PyTorch's name of the device: "cpu" or "cuda". A GPU is one thread with one
            generator.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If there are no seeds.
    """
    torch = _import_torch()
    runs, dim, steps = count_runs(seeds), problem.dim, problem.steps
    slab, full, rest = problem.slabs(runs, slab_bytes)
    workers = threads.worth(runs * slab * dim**2) if device == "cpu" else 1
    env_rng, *rngs = _generators(torch, list(seeds), workers + 1, device)
    signs = (
        2 * torch.randint(2, (steps, runs, problem.spurious_rank), generator=env_rng, device=device)
        - 1
    )
    levels = problem.mean + problem.spread * signs.float()

    factor = (problem.init_scale * torch.eye(dim, problem.columns, device=device)).repeat(
        runs, 1, 1
    )
    buffer = torch.empty(runs * slab * dim**2, device=device)

    def piece(size: int) -> tuple[Any, list[threads.Task], Any]:
        flat = buffer[: runs * size * dim**2]
        draws: list[threads.Task] = [
            partial(part.normal_, generator=rng)
            for rng, part in zip(rngs, flat.tensor_split(workers), strict=True)
        ]
        return flat.view(runs, size, dim**2), draws, torch.empty(runs, size, 1, device=device)

    pieces = [piece(slab)] * full + ([piece(rest)] if rest else [])
    residual = torch.empty(runs, dim, dim, device=device)
    diagonal = residual.diagonal(dim1=1, dim2=2)
    gradient = torch.empty(runs, 1, dim**2, device=device)
    square = gradient.view(runs, dim, dim)
    # On a GPU a call returns before its products are done.
    synchronize = (lambda: None) if device == "cpu" else torch.cuda.synchronize
    clock = Clock(steps, problem.warmup, synchronize)
    with torch.no_grad(), threads.parallel(workers) as run_all:
        for t in clock:
            torch.bmm(factor, factor.mT, out=residual)
            problem.subtract_signals(diagonal, levels[t])
            for i, (sensing, draws, residuals) in enumerate(pieces):
                run_all(draws)
                torch.bmm(sensing, residual.view(runs, dim**2, 1), out=residuals)
                # With beta = 0 the old value is ignored.
                gradient.baddbmm_(residuals.mT, sensing, beta=float(i > 0))
            factor.baddbmm_(square + square.mT, factor.clone(), alpha=-problem.rate)
    return PeerResult(factor.cpu().numpy(), clock.seconds_per_step)


def torch_func(problem: DrawnProblem, *, seeds: Sequence[int]) -> PeerResult:
    """Simulates many runs at once with `torch.func.vmap` over the plain step of one run.

    Random numbers come from torch's global generator, seeded by all `seeds` together; its state is
    restored afterwards. The measurements of one step of all runs are in memory at once.

    Args:
        problem: What to simulate.
        seeds: One integer per run, not negative and below 2**32.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If there are no seeds.
    """
    torch = _import_torch()
    runs, dim, batch_size = count_runs(seeds), problem.dim, problem.batch_size
    invariant = torch.zeros(dim)
    invariant[problem.invariant] = 1
    padding = problem.spurious.start, dim - problem.spurious.stop

    def step(factor: Any) -> Any:
        signs = 2 * torch.randint(2, (problem.spurious_rank,)).float() - 1
        signal = invariant + torch.nn.functional.pad(problem.mean + problem.spread * signs, padding)
        sensing = torch.randn(batch_size, dim**2)
        residuals = sensing @ (factor @ factor.T - torch.diag(signal)).reshape(-1)
        square = (residuals @ sensing).reshape(dim, dim)
        return factor - problem.rate * (square + square.T) @ factor

    advance = torch.func.vmap(step, randomness="different")
    clock = Clock(problem.steps, problem.warmup)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        (word,) = np.random.SeedSequence(list(seeds)).generate_state(1, np.uint64)
        torch.manual_seed(int(word >> np.uint64(1)))
        factor = (problem.init_scale * torch.eye(dim, problem.columns)).repeat(runs, 1, 1)
        for _ in clock:
            factor = advance(factor)
    return PeerResult(factor.numpy(), clock.seconds_per_step)


def torch_design(problem: FiniteProblem, *, seed: int = 0, together: int = 1) -> PeerResult:
    """Simulates the runs on finite data sets on the CPU, with an explicit gradient.

    Args:
        problem: What to simulate.
        seed: Seed of the mini-batches.
        together: Number of runs whose mini-batches are gathered and multiplied at once.

    Raises:
        ImportError: If PyTorch is not installed.
    """
    torch = _import_torch()
    dim, runs, size = problem.dim, problem.runs, problem.size
    generator = torch.Generator().manual_seed(seed)
    data, targets = torch.from_numpy(problem.design), torch.from_numpy(problem.labels)  # no copies
    num_examples, width = problem.design.shape[1:]
    flat, flat_targets = data.reshape(-1, width), targets.reshape(-1)
    row, column = torch.triu_indices(dim, dim)
    place, mirror = row * dim + column, column * dim + row
    scale = torch.where(row == column, 1.0, 2.0**0.5)
    factors = (problem.init_scale * torch.eye(dim)).repeat(runs, 1, 1)
    matrices = torch.empty(runs, dim, dim)
    sums = torch.empty(runs, width)
    buffer = torch.empty(min(together, runs) * size, width)
    order = torch.from_numpy(problem.order).long()
    clock = Clock(len(order), problem.warmup)
    with torch.no_grad():
        for t in clock:
            environments = order[t]
            torch.bmm(factors, factors.mT, out=matrices)
            packed = matrices.view(runs, -1).index_select(1, place) * scale
            if problem.batch_size is None:
                for environment in environments.unique():
                    members = (environments == environment).nonzero()[:, 0]
                    residuals = torch.addmm(
                        targets[environment], packed[members], data[environment].T, beta=-1
                    )
                    sums[members] = residuals @ data[environment]
            else:
                numbers = torch.rand(runs, num_examples, generator=generator)
                chosen = (
                    numbers.topk(size, dim=1, sorted=False).indices
                    + environments[:, None] * num_examples
                )
                for first in range(0, runs, together):
                    some = chosen[first : first + together]
                    rows = buffer[: some.numel()]
                    torch.index_select(flat, 0, some.reshape(-1), out=rows)
                    rows = rows.view(len(some), size, width)
                    residuals = torch.baddbmm(
                        flat_targets[some][:, :, None],
                        rows,
                        packed[first : first + together, :, None],
                        beta=-1,
                    )
                    torch.bmm(residuals.mT, rows, out=sums[first : first + together, None])
            sums /= scale
            square = matrices.view(runs, -1)
            square[:, place] = sums
            square[:, mirror] = sums
            factors.baddbmm_(matrices, factors.clone(), alpha=-problem.learning_rate / size)
    return PeerResult(factors.numpy(), clock.seconds_per_step)


def torch_sees_gpu() -> bool:
    """Whether PyTorch is installed and sees a GPU."""
    return importlib.util.find_spec("torch") is not None and _import_torch().cuda.is_available()


def _import_torch() -> Any:
    """Imports PyTorch, or raises an error that says how to install it."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError("the PyTorch peers need PyTorch: pip install torch") from error


def _generators(torch: Any, entropy: int | list[int], count: int, device: str = "cpu") -> list[Any]:
    """Creates independent torch generators from one or several seeds."""
    words = np.random.SeedSequence(entropy).generate_state(count, np.uint64) >> np.uint64(1)
    return [torch.Generator(device).manual_seed(int(word)) for word in words]
