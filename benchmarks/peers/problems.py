"""What the peers simulate, what they hand back, and how they take their time."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True, kw_only=True)
class DrawnProblem:
    """HeteroSGD for matrix sensing on measurements that are drawn anew.

    Every step one batch of one environment arrives: `batch_size` Gaussian measurements `X_i` with labels
    `<X_i, A* + A_e>`, where `A*` is the identity on the first `invariant_rank` coordinates and `A_e` is diagonal on the
    next `spurious_rank` ones with independent eigenvalues `mean +- spread`. The factor starts at `init_scale * I` and
    follows

        U <- U - learning_rate * (1/m) sum_i r_i sym(X_i) U,    r_i = <X_i, UU' - A* - A_e>.

    What its peers have in common, so that the comparison is fair: float32 throughout (but for `numpy_plain`); the
    residual matrix is formed before the measurements are touched, so each of them is read twice only (once for `r`,
    once for the gradient); measurements are kept flattened, `(m, d*d)`, so that both reads are BLAS products;
    symmetrisation happens once, on the summed gradient; buffers are allocated once; and all the cores of the process
    draw random numbers. What remains is the cost of drawing `m * d * d` normals a step, which no peer can avoid.

    Timings in the peers' docstrings: d = 50, m = 1000, on 2 shared x86-64 cores (they vary by 40 %).

    Attributes:
        dim: Size `d` of the square factor.
        invariant_rank: Rank of `A*`, on the first coordinates.
        spurious_rank: Rank of every `A_e`, on the coordinates after those.
        mean: Mean of the spurious eigenvalues.
        spread: Heterogeneity, the distance of each spurious eigenvalue from `mean`.
        learning_rate: Step size, for the loss `1/(4m) sum_i r_i^2`.
        batch_size: Measurements a step and run.
        init_scale: The factor starts at this times the identity.
        steps: Number of steps, at least 2 (some of them warm up).
        rank: Columns `k` of the factor, which starts at those of the identity; None for `d`.

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
        """Subtract A* and a signal A_e from residual matrices, in place and on their diagonals alone: d operations.

        Args:
            diagonal: A view of the diagonals, a NumPy array or a tensor of shape `(..., d)`.
            spurious: The eigenvalues of A_e, shape `(..., spurious_rank)`.
        """
        diagonal[..., self.invariant] -= 1
        diagonal[..., self.spurious] -= spurious

    @property
    def rate(self) -> float:
        """What a summed gradient plus its transpose is multiplied by."""
        return self.learning_rate / (2 * self.batch_size)

    @property
    def warmup(self) -> int:
        """Steps that warm up: at most a fifth of them and at most 20, and a divisor of `steps`.

        So calls of this length make up a run exactly.
        """
        return next(
            n for n in range(max(1, min(20, self.steps // 5)), 0, -1) if self.steps % n == 0
        )

    def slabs(self, runs: int, slab_bytes: int) -> tuple[int, int, int]:
        """Cuts a batch into slabs of about `slab_bytes` over all the runs.

        Returns:
            Measurements (of each run) in a slab, the number of full slabs, and the measurements left over.
        """
        count = math.ceil(self.batch_size / max(1, slab_bytes // (runs * self.dim**2 * 4)))
        slab = math.ceil(self.batch_size / count)  # as equal as they get
        return slab, self.batch_size // slab, self.batch_size % slab


@dataclass(frozen=True, kw_only=True)
class FiniteProblem:
    """HeteroSGD for matrix sensing on finite data sets.

    Several runs share the measurements X_ei of E environments with n examples each. In step t run r sees environment
    `order[t, r]`: all its examples, or a mini-batch of `batch_size` of them drawn anew without replacement. The factor
    follows

        U <- U - learning_rate * (1/m) sum_i r_i sym(X_i) U,    r_i = <X_i, UU'> - y_i.

    Its peers are given what makes the engine fast: float32, the packed coordinates of the symmetric parts,
    p = d (d + 1) / 2 of d^2 numbers, and for full batches one product of matrices for all the runs in an environment.
    Each example of a mini-batch is fetched once and read twice. BLAS and PyTorch take the threads that they find.

    Attributes:
        design: Packed measurements, shape `(E, n, p)`, single precision.
        labels: Shape `(E, n)`, single precision.
        order: The environment of each step and run, shape `(steps, runs)`, at least 5 steps.
        init_scale: The factors start at this times the identity.
        learning_rate: Step size, for the loss `1/(4m) sum_i r_i^2`.
        batch_size: Examples a step and run; None for all n.

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
        """Examples a step and run."""
        return self.batch_size or self.design.shape[1]

    @property
    def warmup(self) -> int:
        """Steps that warm up."""
        return len(self.order) // 5


class PeerResult(NamedTuple):
    """What a peer hands back.

    Attributes:
        factors: Final factors, shape `(runs, d, k)`. Not finite where the run diverged.
        seconds_per_step: Wall time of one step of *all* runs together, in seconds, over the steps after the
            warm-up (at most a fifth of them; compilation is never included). A simulation of `n` steps takes about
            `n * seconds_per_step`.
    """

    factors: np.ndarray
    seconds_per_step: float

    @property
    def seconds_per_step_and_run(self) -> float:
        """Wall time of one step divided by the number of runs that it advanced, in seconds."""
        return self.seconds_per_step / len(self.factors)


class Clock:
    """The numbers of the steps; when all are done it knows what one took, without those of the warm-up."""

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
    """The number of seeds, of which there must be one."""
    if not len(seeds):
        raise ValueError("seeds must hold at least one integer; got none")
    return len(seeds)
