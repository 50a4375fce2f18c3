"""Published results and their consequences, one module each: what to run, plot and claim.

A study is a module with `CLAIMS` and three functions: `run(quick=, key=, progress=)` returns
datasets by name, `measure(data)` a number for each claim, and `figure(data)` a matplotlib figure.
Where the figure derives numbers from these datasets, such as boundaries and lines of theory, a
function `table(data)` returns them as further datasets, for the table beside the figure. A study
that needs packages beyond the dependencies, such as those with data, names them in `REQUIRES`, with
the extra that installs each; without them its module still loads, and it is skipped.
Its docstrings are published: that of the module is the finding, whose first line states it in one
sentence; that of `run` states what was computed; that of `figure` is the caption. Adding a study is
adding its module to the folder of a system, and its name to `QUESTIONS`. Importing this package
does not start jax.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from causal_sgd import _room, checks

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_room(__name__)
__all__ = [
    "CORE",
    "NAMES",
    "QUESTIONS",
    "SYSTEMS",
    "Claim",
    "Group",
    "Study",
    "Verdict",
    "grouped",
    "lacking",
    "load",
    "question_of",
    "requirements",
    "system_of",
    "title",
    "verdicts",
]

SYSTEMS = ("sensing", "supervised")
"""The folders of studies, one for each system."""

QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "What is learned?": (
        "rotating-bases",
        "over-parameterisation",
        "depth",
        "outliers",
        "positive-spectra",
        "relu-network",
        "separable",
        "benign-oscillation",
        "in-context",
        "linear-attention",
        "digits-threshold",
        "digits-gate",
        "digits-diagram",
        "diagnostic",
        "marker-transformer",
        "heterogeneity",
        "phase-diagram",
        "trajectories",
        "small-batch",
        "intermittency",
        "tilt",
        "finite-data",
        "coloured-logistic",
        "collapse",
        "negative-mean",
        "quadratic-network",
        "label-noise",
        "high-dimension",
        "proportional-limit",
    ),
    "In which order?": ("incremental-learning",),
    "How fast?": (
        "over-specified-rank",
        "grokking-linear",
        "finite-time",
        "preconditioning",
        "minority-groups",
    ),
    "How sparse?": (
        "single-index",
        "label-noise-lasso",
        "diagonal-networks",
        "sample-threshold",
        "heterogeneity-lasso",
        "natural-tables",
    ),
    "How flat?": (
        "where-it-sits",
        "max-learning-rate",
        "progressive-sharpening",
        "sam-edge",
        "layer-alignment",
        "catapult",
        "edge",
        "divergence",
    ),
    "By which method?": (
        "federated",
        "optimizers",
        "orders",
        "mixing",
        "contradiction",
        "digits-methods",
        "digits-memorised",
        "two-bit",
        "overfitting",
        "coloured-bits",
        "environments-needed",
        "minibatch-invariance",
        "chain-sem",
        "invariance-unit-tests",
        "eills",
        "fair",
        "icp-power",
        "sample-size",
    ),
}
"""Studies by the question that they answer, surprising answers first.

This is the order of `causal-sgd reproduce --all`, of its report, and of the atlas.
"""

NAMES = tuple(itertools.chain.from_iterable(QUESTIONS.values()))
"""All studies in that order."""

CORE = ("trajectories", "phase-diagram", "heterogeneity", "small-batch")
"""The studies of plain `causal-sgd reproduce`: the results of the paper, in about two minutes."""


class Claim(NamedTuple):
    """A statement, the interval in which the number measured for it must lie, and its source.

    The interval follows from theory or from the cited source, never from the study's own runs. A
    number without such an interval is a finding: it is reported, not judged.
    """

    text: str
    low: float
    high: float
    source: str
    judged: bool = True

    @classmethod
    def finding(cls, text: str) -> Claim:
        """A number that the study measures and reports without judging it."""
        return cls(text, -math.inf, math.inf, "this study", judged=False)

    @property
    def interval(self) -> str:
        """The interval in words."""
        if not self.judged:
            return "not judged"
        if math.isinf(self.high):
            return f"at least {self.low:.4g}"
        if math.isinf(self.low):
            return f"at most {self.high:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"


class Verdict(NamedTuple):
    """A claim and the number measured for it."""

    claim: Claim
    measured: float

    @property
    def holds(self) -> bool | None:
        """Whether the number lies in the interval; None for a finding, which is not judged."""
        if not self.claim.judged:
            return None
        return bool(self.claim.low <= self.measured <= self.claim.high)


class Study(Protocol):
    """The module of a study."""

    __doc__: str | None
    CLAIMS: Mapping[str, Claim]
    """Claims by short name."""

    def run(self, *, quick: bool, key: int, progress: bool | None) -> dict[str, xr.Dataset]:
        """Simulate; return datasets by name."""
        ...

    def measure(self, data: Mapping[str, xr.Dataset]) -> Mapping[str, float]:
        """Measure one number for each claim, by its name."""
        ...

    def figure(self, data: Mapping[str, xr.Dataset]) -> Figure:
        """Draw the figure, within `figures.style()`."""
        ...


def verdicts(study: Study, data: Mapping[str, xr.Dataset]) -> list[Verdict]:
    """Compare the numbers that a study measures with its claims, in the order of the claims.

    Raises:
        RuntimeError: if the study does not measure exactly its claims.
    """
    measured = study.measure(data)
    if set(measured) != set(study.CLAIMS):
        raise RuntimeError(f"the study must measure {sorted(study.CLAIMS)}, got {sorted(measured)}")
    return [Verdict(claim, float(measured[name])) for name, claim in study.CLAIMS.items()]


def load(name: str) -> Study:
    """Import the module of a study.

    Raises:
        ValueError: for an unknown name.
    """
    name = checks.choice("study", name.replace("_", "-"), NAMES)
    module = f"causal_sgd.studies.{system_of(name)}.{name.replace('-', '_')}"
    return cast(Study, importlib.import_module(module))


def system_of(name: str) -> str:
    """The system of a study, whose folder holds its module.

    Raises:
        LookupError: if no system has the module.
    """
    for system in SYSTEMS:
        if importlib.util.find_spec(f"causal_sgd.studies.{system}.{name.replace('-', '_')}"):
            return system
    raise LookupError(f"no folder of {', '.join(SYSTEMS)} has a module of the study {name!r}")


def question_of(name: str) -> str:
    """The question that a study answers, which groups it in reports and in the atlas."""
    return next(question for question, names in QUESTIONS.items() if name in names)


class Group(NamedTuple):
    """The studies of one system that answer one question."""

    system: str  # empty for studies that are not in `NAMES`
    question: str
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        """System and question in one line."""
        return f"{self.system}: {self.question}" if self.system else self.question


def grouped(names: Iterable[str] | None = None) -> list[Group]:
    """Studies by system and question, as lists and reports show them.

    Args:
        names: of studies, by default all. Those that are not in `NAMES` form the last group.
    """
    chosen = tuple(dict.fromkeys(NAMES if names is None else names))
    groups = []
    for system, question in itertools.product(SYSTEMS, QUESTIONS):
        members = [name for name in QUESTIONS[question] if name in chosen]
        own = tuple(name for name in members if system_of(name) == system)
        if own:
            groups.append(Group(system, question, own))
    others = tuple(name for name in chosen if name not in NAMES)
    return [*groups, Group("", "Studies of your own", others)] if others else groups


def requirements(study: Study) -> Mapping[str, str]:
    """The packages that a study needs beyond the dependencies, each with the extra that has it."""
    return getattr(study, "REQUIRES", {})


def lacking(study: Study) -> str:
    """What keeps a study from running here, and what to install; empty where nothing does."""
    absent = {}
    for package, extra in requirements(study).items():
        try:
            importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            absent[package] = extra
    if not absent:
        return ""
    extras = ",".join(sorted(set(absent.values())))
    return f"needs {', '.join(absent)}: pip install 'causal_sgd[{extras}]'"


def title(study: Study) -> str:
    """The first line of a study's docstring."""
    return (study.__doc__ or "").partition("\n")[0]
