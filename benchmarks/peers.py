"""The simulation that people write today, in NumPy, PyTorch and plain JAX, to measure `causal_sgd` against.

Each peer runs HeteroSGD for matrix sensing. Every step one batch of one
environment arrives: `batch_size` Gaussian measurements `X_i` with labels `<X_i, A* + A_e>`, where `A*` is the
identity on the first `invariant_rank` coordinates and `A_e` is diagonal on the next `spurious_rank` ones with
independent eigenvalues `mean +- spread`. The factor starts at `init_scale * I` and follows

    U <- U - learning_rate * (1/m) sum_i r_i sym(X_i) U,    r_i = <X_i, UU' - A* - A_e>.

What the peers have in common, so that the comparison is fair: float32 throughout; the residual matrix is formed
before the measurements are touched, so each of them is read twice only (once for `r`, once for the gradient);
measurements are kept flattened, `(m, d*d)`, so that both reads are BLAS products; symmetrisation happens once,
on the summed gradient; buffers are allocated once; and all the cores of the process draw random numbers. What
remains is the cost of drawing `m * d * d` normals a step, which no peer can avoid.

Timings in the docstrings: d = 50, m = 1000, ms a step and run, on 2 shared x86-64 cores (they vary by 40 %).
"""

import importlib
import importlib.util
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "PeerResult", "jax_drawn", "numpy_loop", "numpy_plain", "torch_batched", "torch_func", "torch_loop", "torch_sees_gpu",
]  # fmt: skip

Task = Callable[[], object]

# A thread has to draw about a millisecond's worth of normals before handing it work pays.
_NORMALS_PER_THREAD = 2**17


class PeerResult(NamedTuple):
    """What a peer hands back.

    Attributes:
        spurious_signal: Final `|V'U|_F` of every run, shape `(runs,)`. Not finite where the run diverged.
        invariant_error: Final `|UU' - A*|_F` of every run, shape `(runs,)`. Not finite where the run diverged.
        seconds_per_step: Wall time of one step of *all* runs together, in seconds, over the steps after the
            warm-up (at most a fifth of them and at most 20; compilation is never included). A simulation of
            `n` steps takes about `n * seconds_per_step`.
    """

    spurious_signal: np.ndarray
    invariant_error: np.ndarray
    seconds_per_step: float

    @property
    def seconds_per_step_and_run(self) -> float:
        """Wall time of one step divided by the number of runs that it advanced, in seconds."""
        return self.seconds_per_step / len(self.spurious_signal)


def numpy_loop(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float,
    spread: float,
    learning_rate: float,
    batch_size: int,
    init_scale: float,
    steps: int,
    seed: int,
    rank: int | None = None,
) -> PeerResult:
    """Simulates one run with a NumPy loop.

    SFC64 is the fastest of NumPy's bit generators here (10 % ahead of PCG64), and drawing on two threads, as
    NumPy's manual shows, takes 0.6 of the time of one.

    Args:
        dim: Size `d` of the square factor.
        invariant_rank: Rank of `A*`, on the first coordinates.
        spurious_rank: Rank of every `A_e`, on the coordinates after those.
        mean: Mean of the spurious eigenvalues.
        spread: Heterogeneity, the distance of each spurious eigenvalue from `mean`.
        learning_rate: Step size, for the loss `1/(4m) sum_i r_i^2`.
        batch_size: Measurements a step.
        init_scale: The factor starts at this times the identity.
        steps: Number of steps, at least 2 (some of them warm up).
        seed: Seed of all randomness of the run, not negative.
        rank: Columns `k` of the factor, which starts at those of the identity; None for `d`.

    Returns:
        The final signal and error, shape `(1,)`, and the time per step.

    Raises:
        ValueError: If a size is out of range or the ranks do not fit into `dim`.
    """
    warmup = _check(dim, invariant_rank, spurious_rank, batch_size, steps)
    workers = _workers(batch_size * dim**2)
    env_rng, *rngs = (np.random.Generator(np.random.SFC64(s)) for s in np.random.SeedSequence(seed).spawn(workers + 1))
    signs = env_rng.choice(np.array([-1, 1], np.float32), size=(steps, spurious_rank))
    levels = (mean + spread * signs).astype(np.float32)

    factor = np.eye(dim, rank, dtype=np.float32) * np.float32(init_scale)
    sensing = np.empty((batch_size, dim**2), np.float32)
    draws: list[Task] = [
        partial(rng.standard_normal, out=part, dtype=np.float32)
        for rng, part in zip(rngs, np.array_split(sensing.reshape(-1), workers), strict=True)
    ]
    residual = np.empty((dim, dim), np.float32)
    diagonal = residual.reshape(-1)[:: dim + 1]  # a view: subtracting a diagonal signal costs d operations
    residuals = np.empty(batch_size, np.float32)
    gradient = np.empty((dim, dim), np.float32)
    symmetric = np.empty((dim, dim), np.float32)
    update = np.empty_like(factor)
    rate = np.float32(learning_rate / (2 * batch_size))
    start = 0.0
    with _parallel(workers) as run_all, np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps):
            if t == warmup:
                start = time.perf_counter()
            run_all(draws)
            np.matmul(factor, factor.T, out=residual)
            diagonal[:invariant_rank] -= 1
            diagonal[invariant_rank : invariant_rank + spurious_rank] -= levels[t]
            np.matmul(sensing, residual.reshape(-1), out=residuals)
            np.matmul(residuals, sensing, out=gradient.reshape(-1))
            np.add(gradient, gradient.T, out=symmetric)
            np.matmul(symmetric, factor, out=update)
            update *= rate
            factor -= update
        elapsed = time.perf_counter() - start
    return _result(factor[None], invariant_rank, spurious_rank, elapsed / (steps - warmup))


def numpy_plain(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float,
    spread: float,
    learning_rate: float,
    batch_size: int,
    init_scale: float,
    steps: int,
    seed: int,
    rank: int | None = None,
) -> PeerResult:
    """Simulates one run with the NumPy loop that one writes first: float64, `default_rng`, no buffers, no threads.

    Both sums over the measurements are BLAS products even so.

    Args:
        dim: See `numpy_loop`, and so on for all the others.
        invariant_rank: Rank of `A*`.
        spurious_rank: Rank of every `A_e`.
        mean: Mean of the spurious eigenvalues.
        spread: Distance of each spurious eigenvalue from `mean`.
        learning_rate: Step size.
        batch_size: Measurements a step.
        init_scale: The factor starts at this times the identity.
        steps: Number of steps, at least 2.
        seed: Seed of all randomness of the run, not negative.
        rank: Columns `k` of the factor, which starts at those of the identity; None for `d`.

    Returns:
        The final signal and error, shape `(1,)`, and the time per step.

    Raises:
        ValueError: If a size is out of range or the ranks do not fit into `dim`.
    """
    warmup = _check(dim, invariant_rank, spurious_rank, batch_size, steps)
    rng = np.random.default_rng(seed)
    factor = init_scale * np.eye(dim, rank)
    start = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps):
            if t == warmup:
                start = time.perf_counter()
            signal = np.zeros(dim)
            signal[:invariant_rank] = 1
            signal[invariant_rank : invariant_rank + spurious_rank] = mean + spread * rng.choice([-1, 1], spurious_rank)
            sensing = rng.standard_normal((batch_size, dim * dim))
            residuals = sensing @ (factor @ factor.T - np.diag(signal)).ravel()
            gradient = (residuals @ sensing).reshape(dim, dim) / batch_size
            factor = factor - learning_rate * (gradient + gradient.T) / 2 @ factor
        elapsed = time.perf_counter() - start
    return _result(factor[None], invariant_rank, spurious_rank, elapsed / (steps - warmup))


def torch_loop(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float,
    spread: float,
    learning_rate: float,
    batch_size: int,
    init_scale: float,
    steps: int,
    seed: int,
    rank: int | None = None,
) -> PeerResult:
    """Simulates one run with a PyTorch loop on the CPU.

    The gradient is written out under `no_grad`, which is what a careful user ends with. Torch fills a tensor with normals on one thread, so the tensor is filled in
    parts by Python threads (0.6 of the time of one). `torch.compile` was no help: it draws its own normals,
    unvectorised, at 7 times the cost.

    Args:
        dim: See `numpy_loop`, and so on for all the others.
        invariant_rank: Rank of `A*`.
        spurious_rank: Rank of every `A_e`.
        mean: Mean of the spurious eigenvalues.
        spread: Distance of each spurious eigenvalue from `mean`.
        learning_rate: Step size.
        batch_size: Measurements a step.
        init_scale: The factor starts at this times the identity.
        steps: Number of steps, at least 2.
        seed: Seed of all randomness of the run, not negative.
        rank: Columns `k` of the factor, which starts at those of the identity; None for `d`.

    Returns:
        The final signal and error, shape `(1,)`, and the time per step.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If a size is out of range or the ranks do not fit into `dim`.
    """
    torch = _import_torch()
    warmup = _check(dim, invariant_rank, spurious_rank, batch_size, steps)
    workers = _workers(batch_size * dim**2)
    env_rng, *rngs = _torch_generators(torch, seed, workers + 1)
    signs = 2 * torch.randint(2, (steps, spurious_rank), generator=env_rng) - 1
    levels = mean + spread * signs.float()

    factor = init_scale * torch.eye(dim, rank or dim)
    sensing = torch.empty(batch_size, dim**2)
    draws: list[Task] = [
        partial(part.normal_, generator=rng)
        for rng, part in zip(rngs, sensing.view(-1).tensor_split(workers), strict=True)
    ]
    residual = torch.empty(dim, dim)
    diagonal = residual.diagonal()
    residuals = torch.empty(batch_size)
    gradient = torch.empty(1, dim**2)
    square = gradient.view(dim, dim)
    rate = learning_rate / (2 * batch_size)
    start = 0.0
    with torch.no_grad(), _parallel(workers) as run_all:
        for t in range(steps):
            if t == warmup:
                start = time.perf_counter()
            run_all(draws)
            torch.mm(factor, factor.T, out=residual)
            diagonal[:invariant_rank] -= 1
            diagonal[invariant_rank : invariant_rank + spurious_rank] -= levels[t]
            torch.mv(sensing, residual.view(-1), out=residuals)
            torch.mm(residuals[None], sensing, out=gradient)
            factor.addmm_(square + square.T, factor.clone(), alpha=-rate)
        elapsed = time.perf_counter() - start
    return _result(factor[None].numpy(), invariant_rank, spurious_rank, elapsed / (steps - warmup))


def torch_batched(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float,
    spread: float,
    learning_rate: float,
    batch_size: int,
    init_scale: float,
    steps: int,
    seeds: Sequence[int],
    rank: int | None = None,
    slab_bytes: int = 2**25,
    device: str = "cpu",
) -> PeerResult:
    """Simulates many runs at once with batched PyTorch products.

    Normals are drawn for all runs by one generator per thread: `seeds` together seed those, so a run is reproduced by the
    same `seeds` on the same number of cores and not by its own seed alone.

    Args:
        dim: See `numpy_loop`, and so on for all the others.
        invariant_rank: Rank of `A*`.
        spurious_rank: Rank of every `A_e`.
        mean: Mean of the spurious eigenvalues.
        spread: Distance of each spurious eigenvalue from `mean`.
        learning_rate: Step size.
        batch_size: Measurements a step and run.
        init_scale: The factors start at this times the identity.
        steps: Number of steps, at least 2.
        seeds: One integer per run, not negative and below 2**32.
        rank: Columns of the factor, see `numpy_loop`.
        slab_bytes: Measurements are drawn and used in slabs of about this size, over all runs.
        device: Where, as PyTorch calls it: "cpu" or "cuda". A GPU is one thread with one generator.

    Returns:
        The final signals and errors, shape `(len(seeds),)`, and the time per step of all runs.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If a size is out of range or the ranks do not fit into `dim`.
    """
    torch = _import_torch()
    warmup = _check(dim, invariant_rank, spurious_rank, batch_size, steps, seeds)
    runs = len(seeds)
    slab, full, rest = _slabs(batch_size, runs * dim**2 * 4, slab_bytes)
    workers = _workers(runs * slab * dim**2) if device == "cpu" else 1
    env_rng, *rngs = _torch_generators(torch, list(seeds), workers + 1, device)
    signs = 2 * torch.randint(2, (steps, runs, spurious_rank), generator=env_rng, device=device) - 1
    levels = mean + spread * signs.float()

    factor = (init_scale * torch.eye(dim, rank or dim, device=device)).repeat(runs, 1, 1)
    buffer = torch.empty(runs * slab * dim**2, device=device)

    def piece(size: int) -> tuple[Any, list[Task], Any]:
        flat = buffer[: runs * size * dim**2]
        draws: list[Task] = [
            partial(part.normal_, generator=rng) for rng, part in zip(rngs, flat.tensor_split(workers), strict=True)
        ]
        return flat.view(runs, size, dim**2), draws, torch.empty(runs, size, 1, device=device)

    pieces = [piece(slab)] * full + ([piece(rest)] if rest else [])
    residual = torch.empty(runs, dim, dim, device=device)
    diagonal = residual.diagonal(dim1=1, dim2=2)
    gradient = torch.empty(runs, 1, dim**2, device=device)
    square = gradient.view(runs, dim, dim)
    rate = learning_rate / (2 * batch_size)
    synchronize = (lambda: None) if device == "cpu" else torch.cuda.synchronize  # products run on after the call
    start = 0.0
    with torch.no_grad(), _parallel(workers) as run_all:
        for t in range(steps):
            if t == warmup:
                synchronize()
                start = time.perf_counter()
            torch.bmm(factor, factor.mT, out=residual)
            diagonal[:, :invariant_rank] -= 1
            diagonal[:, invariant_rank : invariant_rank + spurious_rank] -= levels[t]
            for i, (sensing, draws, residuals) in enumerate(pieces):
                run_all(draws)
                torch.bmm(sensing, residual.view(runs, dim**2, 1), out=residuals)
                gradient.baddbmm_(residuals.mT, sensing, beta=float(i > 0))  # beta 0: the old value is ignored
            factor.baddbmm_(square + square.mT, factor.clone(), alpha=-rate)
        synchronize()
        elapsed = time.perf_counter() - start
    return _result(factor.cpu().numpy(), invariant_rank, spurious_rank, elapsed / (steps - warmup))


def torch_func(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float,
    spread: float,
    learning_rate: float,
    batch_size: int,
    init_scale: float,
    steps: int,
    seeds: Sequence[int],
    rank: int | None = None,
) -> PeerResult:
    """Simulates many runs at once with `torch.func.vmap` over the plain step of one run.

    Its random numbers come from torch's global generator, which `seeds` together seed and which is left as it was.

    Args:
        dim: See `numpy_loop`, and so on for all the others.
        invariant_rank: Rank of `A*`.
        spurious_rank: Rank of every `A_e`.
        mean: Mean of the spurious eigenvalues.
        spread: Distance of each spurious eigenvalue from `mean`.
        learning_rate: Step size.
        batch_size: Measurements a step and run; all of them, of all runs, are held at once.
        init_scale: The factors start at this times the identity.
        steps: Number of steps, at least 2.
        seeds: One integer per run, not negative and below 2**32.
        rank: Columns of the factor, see `numpy_loop`.

    Returns:
        The final signals and errors, shape `(len(seeds),)`, and the time per step of all runs.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If a size is out of range or the ranks do not fit into `dim`.
    """
    torch = _import_torch()
    warmup = _check(dim, invariant_rank, spurious_rank, batch_size, steps, seeds)
    invariant = torch.zeros(dim)
    invariant[:invariant_rank] = 1
    after = dim - invariant_rank - spurious_rank

    def step(factor: Any) -> Any:
        signs = 2 * torch.randint(2, (spurious_rank,)).float() - 1
        signal = invariant + torch.nn.functional.pad(mean + spread * signs, (invariant_rank, after))
        sensing = torch.randn(batch_size, dim**2)
        residuals = sensing @ (factor @ factor.T - torch.diag(signal)).reshape(-1)
        square = (residuals @ sensing).reshape(dim, dim)
        return factor - learning_rate / (2 * batch_size) * (square + square.T) @ factor

    advance = torch.func.vmap(step, randomness="different")
    start = 0.0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(list(seeds)).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        factor = (init_scale * torch.eye(dim, rank or dim)).repeat(len(seeds), 1, 1)
        for t in range(steps):
            if t == warmup:
                start = time.perf_counter()
            factor = advance(factor)
        elapsed = time.perf_counter() - start
    return _result(factor.numpy(), invariant_rank, spurious_rank, elapsed / (steps - warmup))


def jax_drawn(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float,
    spread: float,
    learning_rate: float,
    batch_size: int,
    init_scale: float,
    steps: int,
    seeds: Sequence[int],
    rank: int | None = None,
    slab_bytes: int = 2**22,
    prng_impl: str = "threefry2x32",
) -> PeerResult:
    """Simulates many runs at once with plain `jit(vmap(scan))` over drawn measurements.

    Slabs bound the memory.
    It runs on jax's default device, where products have jax's default precision (TensorFloat-32 on recent GPUs).
    A run depends on its own seed only (up to rounding).

    Args:
        dim: See `numpy_loop`, and so on for all the others.
        invariant_rank: Rank of `A*`.
        spurious_rank: Rank of every `A_e`.
        mean: Mean of the spurious eigenvalues.
        spread: Distance of each spurious eigenvalue from `mean`.
        learning_rate: Step size.
        batch_size: Measurements a step and run.
        init_scale: The factors start at this times the identity.
        steps: Number of steps, at least 2.
        seeds: One integer per run, not negative and below 2**32.
        rank: Columns of the factor, see `numpy_loop`.
        slab_bytes: Measurements are drawn and used in slabs of about this size, over all runs.
        prng_impl: JAX's bit generator. The default is also JAX's and `causal_sgd`'s.

    Returns:
        The final signals and errors, shape `(len(seeds),)`, and the time per step of all runs.

    Raises:
        ValueError: If a size is out of range or the ranks do not fit into `dim`.
    """
    import jax
    import jax.numpy as jnp

    warmup = _check(dim, invariant_rank, spurious_rank, batch_size, steps, seeds)
    slab, full, rest = _slabs(batch_size, len(seeds) * dim**2 * 4, slab_bytes)

    def add_slab(gradient: jax.Array, key: jax.Array, residual: jax.Array, size: int) -> jax.Array:
        sensing = jax.random.normal(key, (size, dim**2), jnp.float32)
        return gradient + (sensing @ residual) @ sensing

    def step(factor: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        env_key, *keys = jax.random.split(key, 3)
        signs = jax.random.rademacher(env_key, (spurious_rank,), jnp.float32)
        signal = jnp.zeros(dim, jnp.float32).at[:invariant_rank].set(1)
        signal = signal.at[invariant_rank : invariant_rank + spurious_rank].set(mean + spread * signs)
        residual = (factor @ factor.T - jnp.diag(signal)).reshape(-1)

        def body(gradient: jax.Array, slab_key: jax.Array) -> tuple[jax.Array, None]:
            return add_slab(gradient, slab_key, residual, slab), None

        slab_keys = jax.random.split(keys[0], full)
        gradient, _ = jax.lax.scan(body, jnp.zeros(dim**2, jnp.float32), slab_keys)
        if rest:
            gradient = add_slab(gradient, keys[1], residual, rest)
        square = gradient.reshape(dim, dim)
        return factor - learning_rate / (2 * batch_size) * (square + square.T) @ factor, None

    advance = jax.jit(jax.vmap(lambda factor, keys: jax.lax.scan(step, factor, keys)[0]))

    @jax.jit
    def prepare(seeds: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        root = jax.vmap(partial(jax.random.key, impl=prng_impl))(seeds)
        keys = jax.vmap(lambda key: jax.random.split(key, steps))(root)
        factor = jnp.tile(init_scale * jnp.eye(dim, rank, dtype=jnp.float32), (len(seeds), 1, 1))
        return factor, jnp.split(keys, steps // warmup, axis=1)

    # Calls of equal length: one compilation, and the first call is the warm-up. The others are dispatched
    # asynchronously, so the device never waits for Python.
    factor, chunks = jax.block_until_ready(prepare(jnp.asarray(np.array(seeds, np.uint32))))
    factor = jax.block_until_ready(advance(factor, chunks[0]))
    start = time.perf_counter()
    for keys in chunks[1:]:
        factor = advance(factor, keys)
    factor = jax.block_until_ready(factor)
    elapsed = time.perf_counter() - start
    return _result(np.asarray(factor), invariant_rank, spurious_rank, elapsed / (steps - warmup))


def _result(factor: np.ndarray, invariant_rank: int, spurious_rank: int, seconds: float) -> PeerResult:
    """Measures the final factors, shape `(runs, d, k)`."""
    factor = factor.astype(np.float64)
    target = np.diag((np.arange(factor.shape[-2]) < invariant_rank).astype(np.float64))
    spurious = factor[:, invariant_rank : invariant_rank + spurious_rank]
    with np.errstate(over="ignore", invalid="ignore"):
        error = factor @ factor.swapaxes(1, 2) - target
        return PeerResult(np.linalg.norm(spurious, axis=(1, 2)), np.linalg.norm(error, axis=(1, 2)), seconds)


def _check(
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    batch_size: int,
    steps: int,
    seeds: Sequence[int] = (0,),
) -> int:
    """Refuses sizes that make no sense, and returns the number of steps that warm up."""
    if min(invariant_rank, spurious_rank) < 1 or invariant_rank + spurious_rank > dim:
        raise ValueError(
            f"invariant_rank and spurious_rank must be positive and sum to at most dim; "
            f"got {invariant_rank} and {spurious_rank} with dim {dim}"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    if steps < 2:
        raise ValueError(f"steps must be at least 2 (the first ones warm up); got {steps}")
    if not len(seeds):
        raise ValueError("seeds must hold at least one integer; got none")
    # A divisor of `steps`, so that calls of this length make up a run exactly.
    return next(length for length in range(max(1, min(20, steps // 5)), 0, -1) if steps % length == 0)


def _slabs(batch_size: int, bytes_per_measurement: int, slab_bytes: int) -> tuple[int, int, int]:
    """Cuts a batch into slabs.

    Args:
        batch_size: Measurements a step and run.
        bytes_per_measurement: Size of one measurement of every run together.
        slab_bytes: Size to aim at.

    Returns:
        Measurements (of each run) in a slab, the number of full slabs, and the measurements left over.
    """
    count = math.ceil(batch_size / max(1, slab_bytes // bytes_per_measurement))
    slab = math.ceil(batch_size / count)  # as equal as they get
    return slab, batch_size // slab, batch_size % slab


def _workers(normals: int) -> int:
    """Number of threads that are worth drawing so many normals with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, normals // _NORMALS_PER_THREAD))


@contextmanager
def _parallel(workers: int) -> Iterator[Callable[[Sequence[Task]], None]]:
    """Yields a function that runs `workers` tasks at once, the first of them in the calling thread."""
    if workers == 1:

        def run_all(tasks: Sequence[Task]) -> None:
            tasks[0]()

        yield run_all
        return
    with ThreadPoolExecutor(workers - 1) as pool:

        def run_all_at_once(tasks: Sequence[Task]) -> None:
            others = [pool.submit(task) for task in tasks[1:]]
            tasks[0]()
            for other in others:
                other.result()

        yield run_all_at_once


def _import_torch() -> Any:
    """Imports PyTorch, which only the benchmarks need, or says how to get it."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError("the PyTorch peers need PyTorch: pip install torch") from error


def torch_sees_gpu() -> bool:
    """Whether PyTorch is installed, and for a GPU that is there."""
    return importlib.util.find_spec("torch") is not None and _import_torch().cuda.is_available()


def _torch_generators(torch: Any, entropy: int | list[int], count: int, device: str = "cpu") -> list[Any]:
    """Makes independent torch generators from one or several seeds."""
    words = np.random.SeedSequence(entropy).generate_state(count, np.uint64) >> np.uint64(1)
    return [torch.Generator(device).manual_seed(int(word)) for word in words]
