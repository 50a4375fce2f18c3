"""The environments, or a file with data of them, and how they change during a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from causal_sgd import checks
from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import (
    AnyExperiment,
    Computed,
    Option,
    Parts,
    Source,
    Table,
    absent,
    one_of,
    option,
    part,
    unless,
)

if TYPE_CHECKING:
    from causal_sgd.experiment._supervised._files import Data

__all__ = ["EVOLUTIONS", "WORLDS", "WorldFields"]

PLACEMENT: dict[str, str | Source] = {
    "intercept": "label_intercept",
    "scramble": "scramble",
    "probabilities": "probabilities",
}
"""The options of every linear world."""


def _worlds() -> ModuleType:
    from causal_sgd.supervised import worlds

    return worlds


def _nonstationary() -> ModuleType:
    from causal_sgd.supervised import nonstationary

    return nonstationary


def _both_unless(replacement: str) -> dict[str, str | Source]:
    """Mean and spread of two environments, which values of any environments replace."""
    return {name: unless(replacement, name) for name in ("mean", "spread")}


def _as_given(field: str) -> Computed:
    """The value of a field that holds names or places, not numbers."""
    return Computed(lambda experiment, parts: getattr(experiment, field), (field,))


DEFAULT_COLUMNS = {"label_column": "y", "environment_column": "environment"}


def _data(parts: Parts) -> Data:
    return cast("Data", parts["data"])


def _column(name: str, experiment: AnyExperiment, array: object) -> object:
    """An array of the file, or else the name of its column."""
    column = getattr(experiment, name)
    if array is None:
        return DEFAULT_COLUMNS[name] if column is None else column
    if column is not None:
        raise ValueError(f"{name} must not be given with an .npz file, got {column!r}")
    return array


def _table(experiment: AnyExperiment, parts: Parts) -> object:
    """The inputs, or a table that has the columns of the label and the environment, too."""
    table = _data(parts).x
    if not hasattr(table, "columns"):
        return table
    names = [str(name) for name in table.columns]
    fields = {field: getattr(experiment, field) for field in DEFAULT_COLUMNS}
    wanted = [DEFAULT_COLUMNS[field] for field, column in fields.items() if column is None]
    lacking = [repr(name) for name in wanted if name not in names]
    if lacking:
        raise ValueError(
            f"data_file must have the columns {', '.join([*wanted, 'and those of the inputs'])}; "
            f"it lacks {' and '.join(lacking)}, has {', '.join(names)}"
        )
    for field, column in fields.items():
        if column is not None:
            checks.choice(field, column, names)
    return table


def _label(experiment: AnyExperiment, parts: Parts) -> object:
    return _column("label_column", experiment, _data(parts).y)


def _environment(experiment: AnyExperiment, parts: Parts) -> object:
    array = _data(parts).environment
    return _column("environment_column", experiment, array)


def _held_out(experiment: AnyExperiment, parts: Parts) -> object:
    """The environments with these names, which need not be text in the file."""
    if experiment.held_out is None:
        return None
    names = _environment(experiment, parts)
    found = _data(parts).x.get(names, ()) if isinstance(names, str) else names
    known = {str(name): name for name in set(np.asarray(found).tolist())}
    return [known.get(name, name) for name in experiment.held_out]


WORLDS = Table(
    "world",
    "world",
    _worlds,
    {
        "contradiction": option(
            PLACEMENT,
            _both_unless("biases"),
            "variance",
            "noise",
            "noise_spread",
            "biases",
            "scales",
            "angle",
            "dim_invariant",
            "dim_spurious",
            curve=True,
        ),
        "anticausal": option(
            PLACEMENT,
            _both_unless("slopes"),
            "noise",
            "noise_spread",
            "spurious_noise",
            "slopes",
            "scales",
            "angle",
            "dim_invariant",
            "dim_spurious",
        ),
        "chain": option(
            PLACEMENT,
            "scales",
            training=_as_given("training"),
            dim="dim_invariant",
            hidden="hidden_cause",
            hetero="hetero_noise",
            ones="ones",
        ),
        "unit-test-regression": option(
            PLACEMENT,
            "dim_spurious",
            "scales",
            "num_environments",
            dim_causal="dim_invariant",
        ),
        "gaussian-environments": option(
            "dim_spurious",
            "num_environments",
            "signal",
            "noise",
            "spurious_noise",
            "spurious_scale",
            "scramble",
            "probabilities",
            dim_causal="dim_invariant",
        ),
        "sem": option(
            "dim",
            "degree",
            "num_environments",
            "max_targets",
            "shift",
            "shift_variance",
            "scramble",
            "probabilities",
        ),
        "random-scm": option(
            "dim",
            "num_environments",
            "same_variance",
            "least_bias",
            "rejection_examples",
            "probabilities",
        ),
        "two-bit": option(
            "invariant_flip", "spurious_flips", "test_flips", "colour", "probabilities"
        ),
        "eills-demo": option("probabilities"),
    },
    replacement=(
        "data_file",
        option(
            "validation_share",
            "standardise",
            "probabilities",
            factory="from_arrays",
            columns=_as_given("columns"),
            x=Computed(_table, ("data_file", *DEFAULT_COLUMNS)),
            y=Computed(_label, ("data_file", "label_column")),
            environment=Computed(_environment, ("data_file", "environment_column")),
            tests=Computed(_held_out, ("held_out",)),
        ),
    ),
)

NO_DATA = (absent("data_file", "the data are what they are"),)
FRESH = one_of(
    "measurement",
    ("batch-moments", "batch-directions", "examples"),
    "moments are those of the first world",
)


def _drift_rate(experiment: AnyExperiment, parts: Parts) -> object:
    del parts
    return checks.representable("mean_drift / steps", experiment.mean_drift / experiment.steps)


EVOLUTIONS = Table(
    "evolution",
    "evolve",
    _nonstationary,
    {
        "none": Option(None, curve=True),
        "drift": option(rate=Computed(_drift_rate, ("mean_drift",)), requires=(FRESH, *NO_DATA)),
        "redraw": option(
            world=part("world"),
            probability="redraw_probability",
            requires=(FRESH, *NO_DATA),
        ),
    },
)

if TYPE_CHECKING:
    WorldName = EvolutionName = str
else:
    WorldName = Literal[tuple(WORLDS.options)]
    EvolutionName = Literal[tuple(EVOLUTIONS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldFields:
    """The world and its numbers."""

    world: WorldName = "contradiction"
    """Environments of inputs and labels: contradiction (one invariant and one spurious input, whose
    bias is mean +- spread), anticausal (the label causes the spurious input with slope mean +-
    spread), chain (of Arjovsky et al. 2019), unit-test-regression (Example 1 of Aubin et al. 2021),
    gaussian-environments (a label +-1, of Rosenfeld et al. 2021), sem (random linear structural
    equations under random shifts), two-bit (of Kamath et al. 2021), eills-demo (of Fan et al. 2024)
    and random-scm (of Gu et al. 2024; both nonlinear, and need num-examples)."""
    mean: Axis[float] = 0.5
    """Mean of the biases or slopes over the environments (contradiction, anticausal)."""
    spread: Axis[float] = 1.0
    """Heterogeneity M: how far they lie from their mean; above the mean the environments contradict
    each other."""
    variance: Axis[float] = 4.0
    """Variance of the spurious input (contradiction); a bias is at most noise * sqrt(variance)."""
    noise: Axis[float] = 1.0
    """Standard deviation of the label's noise; of the invariant inputs (gaussian-environments)."""
    noise_spread: Axis[float] = 0.0
    """How much this differs between environments: noise * (1 +- noise-spread)."""
    spurious_noise: Axis[float] = 1.0
    """Standard deviation of the spurious input's own noise (anticausal, gaussian-environments)."""
    signal: Axis[float] = 1.0
    """Mean of the invariant inputs where the label is 1 (gaussian-environments)."""
    spurious_scale: Axis[float] = 1.0
    """Standard deviation of this mean of the spurious inputs over the environments
    (gaussian-environments)."""
    biases: tuple[float, ...] | None = None
    """Bias of each environment (contradiction); replaces mean and spread."""
    slopes: tuple[float, ...] | None = None
    """Slope of each environment (anticausal); replaces mean and spread."""
    scales: tuple[float, ...] | None = None
    """Scale of each environment: of the invariant inputs (contradiction, anticausal), or of all
    noises (chain, unit-test-regression)."""
    angle: Axis[float] = 0.0
    """Angle in radians by which the invariant and the spurious input are rotated (contradiction,
    anticausal)."""
    dim_invariant: int | None = None
    """Number of invariant inputs. Default: 1 (contradiction, anticausal), 5 (chain,
    unit-test-regression), 3 (gaussian-environments)."""
    dim_spurious: int | None = None
    """Number of spurious inputs, with the same defaults; a chain has as many of both."""
    num_environments: int | None = None
    """Number of environments (unit-test-regression, gaussian-environments, sem: 3 by default;
    random-scm: 2 by default)."""
    dim: int | None = None
    """Number of inputs. Default: 5 (sem), 15 (random-scm)."""
    degree: Axis[float] = 2.7
    """Expected number of edges at a node (sem)."""
    max_targets: int = 2
    """The most inputs that are shifted in an environment (sem)."""
    shift: Axis[float] = 1.0
    """Size of the shifts of means (sem)."""
    shift_variance: Axis[float] = 1.0
    """Size of the variances that shifts add (sem)."""
    training: tuple[int, ...] | None = None
    """Indices of the scales whose environments are those of the run; the others are its test
    (chain)."""
    hidden_cause: bool = False
    """Whether a hidden cause acts on inputs and label (chain)."""
    hetero_noise: bool = True
    """Whether the noise of the label differs between environments, rather than that of its children
    (chain)."""
    ones: bool = True
    """Whether the weights are ones rather than drawn (chain)."""
    same_variance: bool = True
    """Whether the label's noise is the same in all environments (random-scm)."""
    least_bias: Axis[float] = 0.5
    """Worlds in which pooled least squares is closer to the truth are rejected (random-scm)."""
    rejection_examples: int = 100_000
    """Examples of every environment for this decision (random-scm)."""
    invariant_flip: Axis[float] = 0.25
    """Probability that the invariant bit differs from the label (two-bit)."""
    spurious_flips: tuple[float, ...] | None = None
    """Probability, in each environment, that the spurious bit differs from the label (two-bit);
    0.2 and 0.1 by default."""
    test_flips: tuple[float, ...] | None = None
    """The same in the environments of the test (two-bit); 0.9 by default."""
    colour: Axis[float] = 1.0
    """Size of the spurious bit (two-bit)."""
    label_intercept: Axis[float] = 0.0
    """Intercept of the label."""
    scramble: bool = False
    """Whether a random rotation mixes the inputs."""
    probabilities: tuple[float, ...] | None = None
    """Probability of each environment; uniform by default."""
    data_file: Path | None = None
    """Your own data in place of the world: a .csv file with columns for the label, the environment
    and the inputs, or an .npz file with arrays x [N,p], y [N] and environment [N]."""
    label_column: str | None = None
    """Column of the label (data-file, .csv); y by default."""
    environment_column: str | None = None
    """Column of the environment (data-file, .csv); environment by default."""
    columns: tuple[str, ...] | None = None
    """Columns of the inputs (data-file, .csv); all others by default."""
    held_out: tuple[str, ...] | None = None
    """Environments that only test risks see (data-file)."""
    validation_share: float | None = None
    """Share of the rows of every environment, random ones for each seed, that nothing trains on,
    for the metric validation_risk (data-file); none by default."""
    standardise: bool = False
    """Whether the inputs are divided by their standard deviations and all means are subtracted
    (data-file)."""
    evolution: EvolutionName = "none"
    """How the world changes before every step: drift (the biases move), redraw (it is drawn
    anew)."""
    mean_drift: Axis[float] = 0.0
    """How far the biases move over the whole run (drift)."""
    redraw_probability: Axis[float] = 1.0
    """Probability that the world is drawn anew before a step (redraw)."""
