"""The exponent of a gate says which trained networks reject a colour, and forecasts none of them.

A network of 32 rectified units learns coloured digits behind a gate g^2 for each input, as in
`digits-gate`, by HeteroSGD: three worlds, five step sizes, eight seeds. At the weights with which a
run ends, the gate of the colour is set to zero, and `diagnosis.exponents` finds by how much a small
one grows in a step, in the mean over 300 batches. The exponent is negative in the runs that reject
the colour and positive in those that keep it: 115 of 119, as 107 of 112 in the independent
simulation. The other four reject the colour with exponents of at most 0.002: nothing holds the
weights behind a gate that is closed, and the exponent may drift back to zero.

At the initial weights the sign is right in 63 of 119, like a coin that is thrown once for each
network: the weights behind the gate are random, and only training makes them agree with the label.
So the exponent certifies what has been trained, and does not forecast what training will do. (The
interval of this claim was set after a first run.) It forecasts where no weights are behind: for u^2
- v^2, after training without any colour, it tells which runs with the colour will reject it, but
for 2 of 55 that are close to the boundary.

Weights of the colour in a plain network have no such exponent. Set to zero they have a gradient in
every environment, which is larger than their curvature: they are no common fixed point, and the
verdict is "not invariant".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._frames import surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _diagnostic_runs as runs

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REQUIRES = {"mlxtend": "data"}
AGREEMENTS = np.array([(0.95, 0.25), (0.9, 0.2), (0.85, 0.35)])  # of colour and label
RATES = 2.0 ** np.arange(-2, 0.1, 0.5)
REJECTED, KEPT = 1e-3, 0.05  # gaps of runs whose outcome is clear
TOLERANCE = 1e-3  # of `diagnosis.diagnose`, beyond which a part is not invariant
SOURCE = "independent simulation"
CLAIMS = {
    "trained": Claim(
        "trained networks: share of the clear runs where the exponent is negative if the colour is "
        "rejected and positive if it is kept",
        0.9,
        1,
        f"{SOURCE}: 107 of 112",
    ),
    "initial": Claim(
        "initial networks: the same share",
        0,
        0.75,
        "a coin for each of eight networks: 0.5 with a standard deviation of 0.09",
    ),
    "plain": Claim(
        "plain network: least gradient on the colour's weights at zero over their curvature, of an "
        "environment and a run",
        TOLERANCE,
        np.inf,
        'beyond it the verdict is "not invariant"',
    ),
    "rejected": Claim.finding("networks with gates: runs that reject the colour"),
    "kept": Claim.finding("networks with gates: runs that keep it"),
    "unclear": Claim.finding("networks with gates: runs in between, which no share counts"),
    "missed": Claim.finding("trained networks: largest size of an exponent with the wrong sign"),
    "plain_gap": Claim.finding("plain network, step size 1: mean gap"),
    "squares": Claim.finding("u^2 - v^2 trained without colour: share of right signs in advance"),
    "squares_missed": Claim.finding("the same: largest size of an exponent with the wrong sign"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Networks behind gates, 3000 steps of 128 fresh examples of one environment, with exponents at
    the first and the last weights; the plain network at the largest step; and u^2 - v^2, 2000 steps
    of 4 seeds, with and without the colour. When quick, fewer seeds and steps, and none of
    u^2 - v^2.
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    worlds = zipped(one=AGREEMENTS[:, 0], other=AGREEMENTS[:, 1])
    seeds, steps = (2, 600) if quick else (8, 3000)
    rates = RATES[::4] if quick else RATES
    axes = {"learning_rate": rates, "world": worlds}
    found = {
        "gates": sweep(runs.gated(steps), axes=axes, seeds=seeds, **options),
        "plain": sweep(
            runs.plain(steps), axes={"learning_rate": RATES[-1:]}, seeds=seeds, **options
        ),
    }
    if quick:
        return found
    axes["colour"] = np.array([0.0, 1.0])
    cell = runs.squares(2000)
    return found | {"squares": sweep(cell, axes=axes, seeds=seeds // 2, **options)}


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Shares of right signs, numbers of runs, and what disturbs a plain network."""
    gaps, exponents, _ = _of_gates(data)
    squares, before, _ = _of_squares(data)
    plain = surviving(data["plain"]).isel(step=-1)
    return {
        "trained": _right(gaps, exponents[..., 1]),
        "initial": _right(gaps, exponents[..., 0]),
        "plain": float(plain.defect.min()),
        "rejected": float(_rejects(gaps).sum()),
        "kept": float(_keeps(gaps).sum()),
        "unclear": float((np.isfinite(gaps) & ~_rejects(gaps) & ~_keeps(gaps)).sum()),
        "missed": _missed(gaps, exponents[..., 1]),
        "plain_gap": float(plain.gap.mean()),
        "squares": _right(squares, before),
        "squares_missed": _missed(squares, before),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Of each step size and world the runs that reject, and those with the sign of rejection."""
    gaps, exponents, _ = _of_gates(data)
    rates = data["gates"].learning_rate.values
    settings = {
        "learning_rate": rates[:, None],
        "one": AGREEMENTS[None, :, 0],
        "other": AGREEMENTS[None, :, 1],
    }
    counts = {
        "rejected": _rejects(gaps).sum(-1),
        "kept": _keeps(gaps).sum(-1),
        "negative": (exponents[..., 1] < 0).sum(-1),
        "initially negative": (exponents[..., 0] < 0).sum(-1),
    }
    return {"outcomes": points(settings, counts)}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The gap between both colours at the end of every run by the exponent of a small gate, two
    standard errors: at the weights where the run ends (left) and where it begins (middle). In the
    grey areas the sign of the exponent is right. Right: u^2 - v^2 by the exponent after
    training without colour.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(10.0, 3.3), layout="constrained", sharey=True)
    gaps, exponents, errors = _of_gates(data)
    _draw(axes[0], gaps, exponents[..., 1], errors[..., 1])
    _draw(axes[1], gaps, exponents[..., 0], errors[..., 0])
    if "squares" in data:
        _draw(axes[2], *_of_squares(data))
    for ax, title in zip(
        axes,
        ("gate, trained weights", "gate, initial weights", r"$u^2 - v^2$, trained without colour"),
        strict=True,
    ):
        ax.set_title(title)
        ax.set_xlabel(r"exponent $\lambda$ a step")
    axes[0].set_ylabel("gap between both colours at the end")
    axes[0].legend(frameon=False, fontsize=8, title="agreement", title_fontsize=8)
    return fig


def _of_gates(data: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaps [rates, worlds, seeds], and exponents and errors at the first and the last weights."""
    gates = data["gates"]
    return _arranged(gates, "gap"), _arranged(gates, "exponent"), _arranged(gates, "error")


def _of_squares(data: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaps of runs with the colour, and exponents and errors of those without it; or NaN."""
    squares = data.get("squares")
    if squares is None:  # when quick
        none = np.full((1, len(AGREEMENTS), 1), np.nan)
        return none, none, none
    gaps = _arranged(squares, "gap")[:, :, 1]
    exponents, errors = (_arranged(squares, name)[:, :, 0] for name in ("exponent", "error"))
    return gaps, exponents, errors


def _arranged(data: xr.Dataset, name: str) -> np.ndarray:
    """A metric at the end of the runs, NaN where they diverged, [rates, worlds, ...]."""
    values = surviving(data)[name].isel(step=-1)
    leading = [dim for dim in ("learning_rate", "world", "colour", "seed") if dim in values.dims]
    return values.transpose(*leading, ...).values


def _rejects(gaps: np.ndarray) -> np.ndarray:
    return np.abs(gaps) < REJECTED


def _keeps(gaps: np.ndarray) -> np.ndarray:
    return gaps > KEPT


def _wrong(gaps: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    return (_rejects(gaps) & (exponents >= 0)) | (_keeps(gaps) & (exponents <= 0))


def _right(gaps: np.ndarray, exponents: np.ndarray) -> float:
    """The share of the clear runs where the sign of the exponent is that of the outcome."""
    clear = _rejects(gaps) | _keeps(gaps)
    return float(1 - _wrong(gaps, exponents).sum() / clear.sum()) if clear.any() else np.nan


def _missed(gaps: np.ndarray, exponents: np.ndarray) -> float:
    """The largest size of an exponent with the wrong sign; 0 if there is none."""
    return float(np.abs(exponents[_wrong(gaps, exponents)]).max(initial=0))


def _draw(ax: Axes, gaps: np.ndarray, exponents: np.ndarray, errors: np.ndarray) -> None:
    """Runs by world, and where the sign of the exponent is right."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    width = 1.05 * np.nanmax(np.abs(exponents) + 2 * errors)
    for place, (one, other) in enumerate(AGREEMENTS):
        ax.errorbar(
            exponents[:, place].ravel(),
            gaps[:, place].ravel(),
            xerr=2 * errors[:, place].ravel(),
            fmt="os^"[place],
            ms=3.5,
            mew=0,
            elinewidth=0.6,
            ecolor=(*to_rgb(f"C{place}"), 0.35),
            alpha=0.85,
            color=f"C{place}",
            label=f"{one:g}, {other:g}",
        )
    height = 1.05 * np.nanmax(gaps)
    for corner, size in (((-width, -0.03), 0.06), ((0, KEPT), height)):
        ax.add_patch(Rectangle(corner, width, size, color="0.93", lw=0, zorder=0))
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_xlim(-width, width)
    ax.locator_params("x", nbins=5)
