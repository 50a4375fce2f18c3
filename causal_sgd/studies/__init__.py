"""Published results and their consequences, one module each: what to run, plot and claim.

A study is a module with `CLAIMS` and three functions: `run(quick=, key=, progress=)` returns
datasets by name, `measure(data)` a number for each claim, and `figure(data)` a matplotlib figure.
Where the figure derives numbers from these datasets, such as boundaries and lines of theory, a
function `table(data)` returns them as further datasets, for the table beside the figure. A study
that needs packages beyond the dependencies, such as those with data, names them in `REQUIRES`, with
the extra that installs each; without them its module still loads, and it is skipped.
Its docstrings are published: that of the module is the finding, whose first line states it in one
sentence; that of `run` states what was computed; that of `figure` is the caption. `reproduce` and
`causal-sgd reproduce` run a study of your own from its file. Adding one to the package is adding
its module to the folder of a system, and its name to `QUESTIONS`. Importing this package does not
start jax.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from causal_sgd import _room

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_room(__name__)
__all__ = [
    "CORE",
    "NAMES",
    "OWN",
    "QUESTIONS",
    "SYSTEMS",
    "Claim",
    "Group",
    "Reproduction",
    "Study",
    "Verdict",
    "grouped",
    "lacking",
    "load",
    "question_of",
    "reproduce",
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

OWN = "Studies of your own"
"""In place of the question of a study that is not built in."""

CORE = ("trajectories", "phase-diagram")
"""The studies of plain `causal-sgd reproduce`: the results of the paper, in a minute."""


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


class Reproduction(NamedTuple):
    """What a study found: `reproduce` returns it."""

    name: str
    """Of its results and figures; with the constants that were set."""
    data: Mapping[str, xr.Dataset]
    """Datasets by name, as `run` returned them."""
    verdicts: Mapping[str, Verdict]
    """By the short names of the claims."""
    figure: Figure
    """Drawn from the data; no window shows it, and a notebook displays it as a value."""
    paths: Mapping[str, Path]
    """What was written: the folder `results`, the table (`csv`) and the figure (`png`, `pdf`)."""
    reused: bool
    """Whether the results were computed earlier."""


def verdicts(study: Study, data: Mapping[str, xr.Dataset]) -> list[Verdict]:
    """Compare the numbers that a study measures with its claims, in the order of the claims.

    Raises:
        RuntimeError: if the study does not measure exactly its claims.
    """
    measured = study.measure(data)
    if set(measured) != set(study.CLAIMS):
        raise RuntimeError(f"the study must measure {sorted(study.CLAIMS)}, got {sorted(measured)}")
    return [Verdict(claim, float(measured[name])) for name, claim in study.CLAIMS.items()]


def load(study: str | Path | ModuleType, *, constants: Mapping[str, object] | None = None) -> Study:
    """Import the module of a study.

    Args:
        study: the name of a built-in study, or one of your own: the path of its file, its module,
            or the name of its module. One of your own is always read from its file, so that an edit
            counts at once.
        constants: new values for constants of the module, such as `{"SEEDS": 64}`, and for fields
            of experiments among them, such as `{"BASE.dim": 100}`. Constants derived from them
            follow.

    Raises:
        ValueError: for an unknown name, a file or a module that is no study or cannot be imported,
            and for constants that it lacks.
    """
    from causal_sgd.studies import _selection

    if constants or not isinstance(study, str) or study.replace("_", "-") not in NAMES:
        return _selection.select(study, constants).study
    name = study.replace("_", "-")
    module = f"causal_sgd.studies.{system_of(name)}.{name.replace('-', '_')}"
    return cast(Study, importlib.import_module(module))


def reproduce(
    study: str | Path | ModuleType,
    *,
    constants: Mapping[str, object] | None = None,
    out: str | Path = "figures",
    quick: bool = False,
    seed: int = 0,
    fresh: bool = False,
    progress: bool | None = None,
) -> Reproduction:
    """Run a study, or reuse its results, as `causal-sgd reproduce` does; return what it finds.

    Args:
        study: a built-in name, or one of your own, as for `load`.
        constants: new values for its constants, as for `load`. Results are then kept apart from
            those with the defaults, for which the intervals of the claims were stated.
        out: the folder for the figure, the table of plotted numbers and the results.
        quick: a reduced size.
        seed: root of all randomness.
        fresh: compute again even where results are saved.
        progress: as for `sweep`.

    Raises:
        ValueError: as for `load`, and if packages that the study needs are not installed.
        Exception: whatever the study raises.
    """
    from causal_sgd.studies import _selection
    from causal_sgd.studies.reproduction import _single

    selected = _selection.select(study, constants)
    return _single.reproduce(
        selected, Path(out), quick=quick, seed=seed, fresh=fresh, progress=progress
    )


def system_of(name: str) -> str:
    """The system of a study, whose folder holds its module; empty for one of one's own.

    Raises:
        LookupError: if no system has the module.
    """
    name = _plain(name)
    if name not in NAMES:
        return ""
    for system in SYSTEMS:
        if importlib.util.find_spec(f"causal_sgd.studies.{system}.{name.replace('-', '_')}"):
            return system
    raise LookupError(f"no folder of {', '.join(SYSTEMS)} has a module of the study {name!r}")


def question_of(name: str) -> str:
    """The question that a study answers, which groups it in reports and in the atlas; `OWN` for one
    of one's own.
    """
    name = _plain(name)
    return next((question for question, names in QUESTIONS.items() if name in names), OWN)


def _plain(name: str) -> str:
    """The name of a study without the constants that were set."""
    return name.partition("[")[0]


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
        own = tuple(
            name
            for study in QUESTIONS[question]
            for name in chosen
            if _plain(name) == study and system_of(study) == system
        )
        if own:
            groups.append(Group(system, question, own))
    others = tuple(name for name in chosen if _plain(name) not in NAMES)
    return [*groups, Group("", OWN, others)] if others else groups


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
