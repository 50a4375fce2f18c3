"""Published results, one module each: what to run, what to plot, and which claims must hold.

A study is a module with a first docstring line that says what it shows, `CLAIMS` that say what must hold, and three functions:
`run(quick=, key=, progress=)` returns its datasets by name, `measure(data)` a number for each claim, and `figure(data)` the
matplotlib figure. The docstrings are read by people: the module's is the finding, that of `run` says what was computed, and
that of `figure` is the figure's caption.
Importing this package does not start jax.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from causal_sgd import checks

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["CORE", "NAMES", "SYSTEMS", "Claim", "Study", "Verdict", "load", "title", "verdicts"]

SYSTEMS = {
    "sensing": (
        "trajectories",
        "phase-diagram",
        "heterogeneity",
        "small-batch",
        "collapse",
        "positive-spectra",
        "negative-mean",
        "mixing",
        "federated",
        "optimizers",
        "finite-time",
        "orders",
        "divergence",
        "tilt",
        "rotating-bases",
        "outliers",
        "intermittency",
        "over-parameterisation",
        "label-noise",
        "quadratic-network",
        "relu-network",
        "depth",
        "high-dimension",
        "finite-data",
    ),
}
"""The studies of each system, in the order of `causal-sgd reproduce --all`."""

NAMES = tuple(itertools.chain.from_iterable(SYSTEMS.values()))
"""All studies in that order."""

CORE = ("trajectories", "phase-diagram", "heterogeneity", "small-batch")
"""Those of plain `causal-sgd reproduce`: what the paper shows, in about two minutes."""


class Claim(NamedTuple):
    """One statement, where it comes from, and the interval in which the number that is measured for it must lie."""

    text: str
    low: float
    high: float
    source: str

    @property
    def interval(self) -> str:
        """Where the number must lie, in words."""
        if math.isinf(self.high):
            return f"at least {self.low:.4g}"
        return (
            f"at most {self.high:.4g}"
            if math.isinf(self.low)
            else f"{self.low:.4g} to {self.high:.4g}"
        )


class Verdict(NamedTuple):
    """A claim and what was measured for it."""

    claim: Claim
    measured: float

    @property
    def holds(self) -> bool:
        """Whether the measured number lies in the interval."""
        return bool(self.claim.low <= self.measured <= self.claim.high)


class Study(Protocol):
    """What a module of this package offers."""

    __doc__: str | None
    CLAIMS: Mapping[str, Claim]
    """What must hold, by a short name."""

    def run(self, *, quick: bool, key: int, progress: bool | None) -> dict[str, xr.Dataset]:
        """Simulate."""
        ...

    def measure(self, data: Mapping[str, xr.Dataset]) -> Mapping[str, float]:
        """One number for each claim, by its name."""
        ...

    def figure(self, data: Mapping[str, xr.Dataset]) -> Figure:
        """Draw; to be called within `plots.style()`."""
        ...


def verdicts(study: Study, data: Mapping[str, xr.Dataset]) -> list[Verdict]:
    """Hold what a study measured against what it claims, in the order of its claims.

    Raises:
        RuntimeError: if the study measured something else than it claims.
    """
    measured = study.measure(data)
    if set(measured) != set(study.CLAIMS):
        raise RuntimeError(f"the study must measure {sorted(study.CLAIMS)}, got {sorted(measured)}")
    return [Verdict(claim, float(measured[name])) for name, claim in study.CLAIMS.items()]


def load(name: str) -> Study:
    """The module of a study.

    Raises:
        ValueError: for an unknown name.
    """
    name = checks.choice("study", name.replace("_", "-"), NAMES)
    system = next(system for system, names in SYSTEMS.items() if name in names)
    module = f"causal_sgd.studies.{system}.{name.replace('-', '_')}"
    return cast(Study, importlib.import_module(module))


def title(study: Study) -> str:
    """The first line of a study's docstring."""
    return (study.__doc__ or "").partition("\n")[0]
