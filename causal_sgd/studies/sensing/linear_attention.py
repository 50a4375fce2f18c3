"""Batches of one source at a time make linear attention forget what its sources dispute.

A head of linear self-attention with one matrix for queries and keys, Q = U U', is trained on
in-context regression (d = 5, contexts of 20, 512 prompts a batch). Source e asks for w'(P + c_e v
v') x, with c_e = .5 +- M. Mixed batches learn v v' at its mean relation whatever M is. Batches of
one source lose it linearly in M^2 until M_c, where the Lyapunov exponent of matrix sensing changes
its sign. Beyond M_c a floor remains, which the noise of a batch feeds: a finite context leaves a
residual at every Q. The shared directions stay. `in-context` has the theory, with separate queries
and keys, for all prompts and for several context lengths.

An independent simulation of 3 seeds gave 0.095 at 0.8 M_c, from which a bound of 0.12 was expected.
The bound does not hold in general: means of 16 seeds ranged from 0.10 to 0.16 over four keys, about
the 0.139 of the line to zero. It is reported as a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import averaged
from causal_sgd.studies._frames import mean_and_error
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing._prompts import unit

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options

HEAD = Experiment(
    dim=5,
    invariant_rank=4,
    spurious_rank=1,
    mean=0.5,
    measurement="in-context",
    context_length=20,
    basis="canonical",
    init_scale=0.1,
    learning_rate=0.1,
    batch_size=512,
    steps=1500,
    record_every=10,
    metrics=("spurious_power", "invariant_signal"),
)
SHARES = {  # of the critical spread
    "one source": np.array([0.0, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.3]),
    "mixed sources": np.array([0.0, 0.5, 1.0, 1.3]),
}
BELOW = 3  # the share of the finding
LATE = 1 / 3  # of the run, before which nothing is averaged
TILE = 8
CLAIMS = {
    "mixed": Claim(
        "mixed batches, M = 0 to M_c: least eigenvalue of Q in the disputed direction",
        0.35,
        0.39,
        "optimum 0.5 / 1.3 = 0.385, less what the noise of batches takes",
    ),
    "source": Claim(
        "batches of one source, M_c to 1.3 M_c: largest mean eigenvalue in the disputed direction",
        0,
        0.06,
        "Lyapunov exponent; floor of an independent simulation",
    ),
    "shared": Claim(
        "all runs: least mean eigenvalue of Q in the shared directions",
        0.7,
        0.78,
        "optimum 1 / 1.3 = 0.769, less what the noise of batches takes",
    ),
    "below": Claim.finding(
        "batches of one source, 0.8 M_c: mean eigenvalue in the disputed direction"
    ),
    "line": Claim.finding("the same over the line from the optimum to zero at M_c, in M^2"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Means of the last 1000 of 1500 steps: 16 seeds of batches of one source, 4 of mixed batches
    (4 and 2 when quick).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    seeds = {"one source": 4 if quick else 16, "mixed sources": 2 if quick else 4}
    samplers = {"one source": "hetero", "mixed sources": "pooled"}
    return {
        name: sweep(
            averaged(HEAD.replace(sampler=samplers[name]).cell(), after=LATE),
            axes={"spread": shares * _critical()},
            seeds=seeds[name],
            tile=TILE,
            label=name,
            **options,
        )
        for name, shares in SHARES.items()
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Eigenvalues of the disputed and of the shared directions."""
    source, mixed = (_disputed(data[name])[0] for name in SHARES)
    till = SHARES["mixed sources"] <= 1
    beyond = SHARES["one source"] >= 1
    return {
        "mixed": float(mixed[till].min()),
        "source": float(source[beyond].max()),
        "shared": float(min(_shared(data[name]).min() for name in SHARES)),
        "below": float(source[BELOW]),
        "line": float(source[BELOW] / (_optimum() * (1 - SHARES["one source"][BELOW] ** 2))),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Eigenvalues over the share of the critical spread."""
    tables = {}
    for name, shares in SHARES.items():
        disputed, error = _disputed(data[name])
        columns = {"disputed": disputed, "standard_error": error, "shared": _shared(data[name])}
        tables[f"means, {name}"] = points({"share": shares}, columns)
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Mean eigenvalues of the query-key matrix and two standard errors, over the squared share of
    the critical spread: the disputed direction (left), with the line from the optimum to zero that
    holds for batches without noise, and the shared ones (right), with their optimum.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    _draw_disputed(axes[0], data)
    _draw_shared(axes[1], data)
    return fig


def _critical() -> float:
    """The critical spread; steps of U U' are twice those of U V'."""
    from causal_sgd import theory

    rate, length = 2 * HEAD.learning_rate, HEAD.context_length
    return float(theory.attention.critical_spread(rate, HEAD.mean, np.ones(1), length))


def _optimum() -> float:
    """The eigenvalue of Q in the disputed direction that mixed sources learn."""
    return HEAD.mean / unit(HEAD.context_length, HEAD.dim)


def _disputed(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Means over seeds of the time averages, and their standard errors."""
    levels = dataset.spurious_power.isel(step=-1)
    others = [name for name in levels.dims if name not in ("spread", "seed")]
    return mean_and_error(levels.squeeze(others).transpose("spread", "seed"))


def _shared(dataset: xr.Dataset) -> np.ndarray:
    """The mean eigenvalue of Q in the shared directions."""
    # The time average of the signal, whose square is the mean but for its small fluctuations.
    squares = dataset.invariant_signal.isel(step=-1) ** 2 / HEAD.invariant_rank
    return squares.transpose("spread", "seed", ...).mean("seed").values.ravel()


def _draw_disputed(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    for index, (name, shares) in enumerate(SHARES.items()):
        mean, error = _disputed(data[name])
        style = {"fmt": "os"[index], "ms": 4, "capsize": 2, "color": COLOURS[index]}
        ax.errorbar(shares**2, mean, 2 * error, label=f"batches of {name}", **style)
    ax.plot([0, 1], [_optimum(), 0], color=COLOURS[0], lw=0.9, zorder=0)
    ax.axhline(_optimum(), color=COLOURS[1], lw=0.9, zorder=0)
    ax.axvline(1, color="0.3", ls=":", lw=1)
    ax.annotate("$M_c$", (1, 0.15), (4, 0), textcoords="offset points")
    ax.set(xlabel="$(M / M_c)^2$", ylabel="eigenvalue of $Q$", ylim=(-0.01, 0.42))
    ax.set_title("what the sources dispute")
    ax.legend(frameon=False, loc=(0.56, 0.5))


def _draw_shared(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    for index, (name, shares) in enumerate(SHARES.items()):
        style = {"marker": "os"[index], "ms": 4, "color": COLOURS[index]}
        ax.plot(shares**2, _shared(data[name]), label=f"batches of {name}", **style)
    ax.axhline(_optimum() / HEAD.mean, color="0.6", lw=0.8, zorder=0)
    ax.axvline(1, color="0.3", ls=":", lw=1)
    ax.set(xlabel="$(M / M_c)^2$", ylim=(0, 0.9))
    ax.set_title("what they share")
    ax.legend(frameon=False, loc="lower left")
