"""The problems that the peers simulate, their results, and their clock."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True, kw_only=True)
class DrawnProblem:
    """HeteroSGD for matrix sensing with new measurements in every step.

    In every step one batch of one environment arrives: `batch_size` Gaussian measurements `X_i`
    with labels `<X_i, A* + A_e>`, where `A*` is the identity on the first `invariant_rank`
    coordinates and `A_e` is diagonal on the next `spurious_rank` ones with independent eigenvalues
    `mean +- spread`. The factor starts at `init_scale * I` and follows

        U <- U - learning_rate * (1/m) sum_i r_i sym(X_i) U,    r_i = <X_i, UU' - A* - A_e>.

    For a fair comparison all peers use the same optimisations: float32 throughout (except
    `numpy_plain`); the residual matrix is formed first, so that each measurement is read only twice
    (once for `r`, once for the gradient); measurements are flattened, `(m, d*d)`, so that both
    reads are BLAS products; the summed gradient is symmetrised once; buffers are allocated once;
    and all cores of the process draw random numbers. The rest is the cost of drawing `m * d * d`
    normals per step, which no peer can avoid.

    Timings in the peers' docstrings: d = 50, m = 1000, on 2 shared x86-64 cores (they vary by 40
    %).

    Attributes:
        dim: Size `d` of the square factor.
        invariant_rank: Rank of `A*`, on the first coordinates.
        spurious_rank: Rank of every `A_e`, on the coordinates after those.
        mean: Mean of the spurious eigenvalues.
        spread: Heterogeneity, the distance of each spurious eigenvalue from `mean`.
        learning_rate: Step size, for the loss `1/(4m) sum_i r_i^2`.
        batch_size: Measurements per step and run.
        init_scale: The factor starts at this times the identity.
        steps: Number of steps, at least 2 (some of them warm up).
        rank: Columns `k` of the factor, initially the first k of the scaled identity; None for `d`.

    Raises:
        ValueError: If a size is out of range or the ranks do not fit into `dim`.
    """

    dim: int
    invariant_rank: int
    spurious_rank: int
    mean: float
    spread: float
    learning_rate: float
    batch_size: int
    init_scale: float
    steps: int
    rank: int | None = None

    def __post_init__(self) -> None:
        if (
            min(self.invariant_rank, self.spurious_rank) < 1
            or self.invariant_rank + self.spurious_rank > self.dim
        ):
            raise ValueError(
                f"invariant_rank and spurious_rank must be positive and sum to at most dim; "
                f"got {self.invariant_rank} and {self.spurious_rank} with dim {self.dim}"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2 (the first ones warm up); got {self.steps}")

    @property
    def columns(self) -> int:
        """Columns of the factor."""
        return self.rank or self.dim

    @property
    def invariant(self) -> slice:
        """The coordinates of `A*`."""
        return slice(self.invariant_rank)

    @property
    def spurious(self) -> slice:
        """The coordinates of every `A_e`."""
        return slice(self.invariant_rank, self.invariant_rank + self.spurious_rank)

    def subtract_signals(self, diagonal: Any, spurious: Any) -> None:
        """Subtract A* and A_e from residual matrices, in place on their diagonals: d operations.

        Args:
            diagonal: A view of the diagonals, a NumPy array or a tensor of shape `(..., d)`.
            spurious: The eigenvalues of A_e, shape `(..., spurious_rank)`.
        """
        diagonal[..., self.invariant] -= 1
        diagonal[..., self.spurious] -= spurious

    @property
    def rate(self) -> float:
        """The coefficient of a summed gradient plus its transpose in an update."""
        return self.learning_rate / (2 * self.batch_size)

    @property
    def warmup(self) -> int:
        """Number of warm-up steps: at most 20 and a fifth of all, and a divisor of `steps`.

        Calls of this length then add up to a run exactly.
        """
        return next(
            n for n in range(max(1, min(20, self.steps // 5)), 0, -1) if self.steps % n == 0
        )

    def slabs(self, runs: int, slab_bytes: int) -> tuple[int, int, int]:
        """Cuts a batch into slabs of about `slab_bytes`, counted over all runs.

        Returns:
            Measurements per run in a slab, the number of full slabs, and the remaining
            measurements.
        """
        count = math.ceil(self.batch_size / max(1, slab_bytes // (runs * self.dim**2 * 4)))
        slab = math.ceil(self.batch_size / count)  # sizes as equal as possible
        return slab, self.batch_size // slab, self.batch_size % slab


@dataclass(frozen=True, kw_only=True)
class FiniteProblem:
    """HeteroSGD for matrix sensing on finite data sets.

    Several runs share the measurements X_ei of E environments with n examples each. In step t run r
    sees environment `order[t, r]`: all its examples, or a new mini-batch of `batch_size` of them,
    drawn without replacement. The factor follows

        U <- U - learning_rate * (1/m) sum_i r_i sym(X_i) U,    r_i = <X_i, UU'> - y_i.

    The peers get the engine's optimisations: float32, the packed coordinates of the symmetric
    parts, p = d (d + 1) / 2 instead of d^2 numbers, and for full batches one matrix product for all
    runs in an environment. Each example of a mini-batch is fetched once and read twice. BLAS and
    PyTorch choose their numbers of threads.

    Attributes:
        design: Packed measurements, shape `(E, n, p)`, single precision.
        labels: Shape `(E, n)`, single precision.
        order: The environment of each step and run, shape `(steps, runs)`, at least 5 steps.
        init_scale: The factors start at this times the identity.
        learning_rate: Step size, for the loss `1/(4m) sum_i r_i^2`.
        batch_size: Examples per step and run; None for all n.

    Raises:
        ValueError: If there are fewer than 5 steps, or `batch_size` is not between 1 and n.
    """

    design: np.ndarray
    labels: np.ndarray
    order: np.ndarray
    init_scale: float
    learning_rate: float
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if len(self.order) < 5:
            raise ValueError(
                f"order must have at least 5 steps (the first ones warm up); got {len(self.order)}"
            )
        if self.batch_size is not None and not 1 <= self.batch_size <= self.design.shape[1]:
            raise ValueError(
                f"batch_size must be between 1 and {self.design.shape[1]}; got {self.batch_size}"
            )

    @property
    def dim(self) -> int:
        """Size of the square factors."""
        return int((8 * self.design.shape[2] + 1) ** 0.5 - 1) // 2

    @property
    def runs(self) -> int:
        """Number of runs."""
        return self.order.shape[1]

    @property
    def size(self) -> int:
        """Examples per step and run."""
        return self.batch_size or self.design.shape[1]

    @property
    def warmup(self) -> int:
        """Number of warm-up steps."""
        return len(self.order) // 5


class PeerResult(NamedTuple):
    """The result of a peer.

    Attributes:
        factors: Final factors, shape `(runs, d, k)`. Not finite where the run diverged.
        seconds_per_step: Wall time of one step of *all* runs together, in seconds, over the steps
            after the warm-up (at most a fifth of all; never includes compilation). A simulation of
            `n` steps takes about `n * seconds_per_step`.
    """

    factors: np.ndarray
    seconds_per_step: float

    @property
    def seconds_per_step_and_run(self) -> float:
        """Wall time of one step divided by the number of runs, in seconds."""
        return self.seconds_per_step / len(self.factors)


class Clock:
    """Iterates over step numbers; afterwards `seconds_per_step` excludes the warm-up."""

    def __init__(
        self, steps: int, warmup: int, synchronize: Callable[[], object] = lambda: None
    ) -> None:
        self.steps, self.warmup, self.synchronize = steps, warmup, synchronize
        self.seconds_per_step = math.nan

    def __iter__(self) -> Iterator[int]:
        start = math.nan
        for step in range(self.steps):
            if step == self.warmup:
                self.synchronize()
                start = time.perf_counter()
            yield step
        self.synchronize()
        self.seconds_per_step = (time.perf_counter() - start) / (self.steps - self.warmup)


def count_runs(seeds: Sequence[int]) -> int:
    """The number of seeds, at least one."""
    if not len(seeds):
        raise ValueError("seeds must hold at least one integer; got none")
    return len(seeds)
