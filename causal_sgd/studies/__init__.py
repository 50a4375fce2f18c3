"""Published results, one module each: what to run, what to plot, and which claims must hold.

A study is a module with a first docstring line that says what it shows and three functions: `run(quick=, key=,
progress=)` returns its datasets by name, `claims(data)` the checks, and `figure(data)` the matplotlib figure.
Importing this package does not start jax.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from causal_sgd import checks

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["NAMES", "Claim", "Study", "load", "title"]

NAMES = ("trajectories", "phase-diagram", "heterogeneity", "small-batch")
"""The studies in the order of `causal-sgd reproduce`."""


class Claim(NamedTuple):
    """One statement, the number that was measured for it, and the interval in which it must lie."""

    text: str
    measured: float
    low: float
    high: float
    source: str

    @property
    def holds(self) -> bool:
        """Whether the measured number lies in the interval."""
        return bool(self.low <= self.measured <= self.high)


class Study(Protocol):
    """What a module of this package offers."""

    __doc__: str | None

    def run(self, *, quick: bool, key: int, progress: bool | None) -> dict[str, xr.Dataset]:
        """Simulate."""
        ...

    def claims(self, data: Mapping[str, xr.Dataset]) -> Sequence[Claim]:
        """Check."""
        ...

    def figure(self, data: Mapping[str, xr.Dataset]) -> Figure:
        """Draw; to be called within `plots.style()`."""
        ...


def load(name: str) -> Study:
    """The module of a study.

    Raises:
        ValueError: for an unknown name.
    """
    checks.choice("study", name.replace("_", "-"), NAMES)
    return cast(Study, importlib.import_module(f"causal_sgd.studies.{name.replace('-', '_')}"))


def title(study: Study) -> str:
    """The first line of a study's docstring."""
    return (study.__doc__ or "").partition("\n")[0]
