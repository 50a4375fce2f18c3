"""The numbers of the environments, and of a file with data of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._supervised._worlds import EVOLUTIONS, WORLDS

__all__ = ["WorldFields"]

if TYPE_CHECKING:
    WorldName = EvolutionName = str
else:
    WorldName = Literal[tuple(WORLDS.options)]
    EvolutionName = Literal[tuple(EVOLUTIONS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldFields:
    """The world and its numbers."""

    world: WorldName = "contradiction"
    """Environments of inputs and labels: contradiction (one invariant and one spurious input,
    whose bias is mean +- spread), anticausal (the label causes the spurious input with slope
    mean +- spread), regression (weights of the spurious inputs mean +- spread), fixed-design (data
    of it on one design), single-index (labels that are a function of one linear form), chain (of
    Arjovsky et al. 2019), unit-test-regression (Example 1 of Aubin
    et al. 2021), sem (random linear structural equations under random shifts), eills-demo (of
    Fan et al. 2024), random-scm and additive-scm (of Gu et al. 2024; all three nonlinear, and
    need num-examples). With labels -1 and 1: unit-test-cows and unit-test-margin (Examples 2
    and 3), gaussian-environments (of Rosenfeld et al. 2021), two-bit (of Kamath et al. 2021),
    zin-logit (of Lin et al. 2022), balancing (of Idrissi et al. 2022), malign-overfitting
    (after Wald et al. 2023) and minority-groups."""
    mean: Axis[float] = 0.5
    """Mean of the biases, slopes or spurious weights over the environments (contradiction,
    anticausal; regression, fixed-design, single-index)."""
    spread: Axis[float] = 1.0
    """Heterogeneity M: how far they lie from their mean; above the mean the environments contradict
    each other."""
    variance: Axis[float] = 4.0
    """Variance of the spurious input (contradiction); a bias is at most noise * sqrt(variance)."""
    noise: Axis[float] = 1.0
    """Standard deviation of the label's noise; of the invariant inputs (gaussian-environments), or
    of all inputs of a group (zin-logit, malign-overfitting)."""
    noise_spread: Axis[float] = 0.0
    """How much this differs between environments: noise * (1 +- noise-spread)."""
    spurious_noise: Axis[float] = 1.0
    """Standard deviation of the spurious input's own noise (anticausal, gaussian-environments)."""
    signal: Axis[float] = 1.0
    """Mean of the invariant inputs where the label is 1 (gaussian-environments), or of the first
    input (malign-overfitting); weight of the invariant inputs (regression, fixed-design,
    single-index)."""
    spurious_signal: Axis[float] = 1.0
    """Mean of the second input where label and shift are 1 (malign-overfitting)."""
    spurious_scale: Axis[float | None] = None
    """Standard deviation of the means of the spurious inputs over the environments
    (gaussian-environments, 1 by default), or size of the spurious input (balancing, 4 by
    default)."""
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
    """Number of invariant inputs. Default: 1 (contradiction, anticausal, regression, fixed-design,
    single-index), 5 (chain, unit tests, zin-logit), 3 (gaussian-environments)."""
    dim_spurious: int | None = None
    """Number of spurious inputs, with the same defaults; a chain has as many of both."""
    used_spurious: Axis[int | None] = None
    """How many of the spurious inputs are not zero (unit tests), so that their number is an axis;
    all by default."""
    num_environments: int | None = None
    """Number of environments (unit tests, gaussian-environments, sem: 3 by default; random-scm: 2
    by default)."""
    dim: int | None = None
    """Number of inputs. Default: 5 (sem), 15 (random-scm), 100 (malign-overfitting), the invariant
    and the spurious ones (regression, fixed-design, single-index; others have the weight 0)."""
    correlation: Axis[float] = 0.0
    """Inputs i and j have the covariance correlation^|i - j| (regression, fixed-design,
    single-index)."""
    shared_noise: bool = False
    """Whether the noise of an example is the same in all environments (fixed-design)."""
    link: Literal["linear", "sine", "tanh", "sign", "cubic"] = "tanh"
    """The label's function of the linear form (single-index)."""
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
    """Worlds in which pooled least squares is closer to the truth, or to those of the environments,
    are rejected (random-scm, additive-scm)."""
    rejection_examples: int | None = None
    """Examples of every environment for this decision. Default: 100000 (random-scm), 20000
    (additive-scm)."""
    candidates: int = 8
    """The most worlds that are drawn for one that is accepted (additive-scm)."""
    label_function: Literal["additive", "interacting"] = "additive"
    """How the label depends on its parents (additive-scm)."""
    invariant_flip: Axis[float | None] = None
    """Probability that the invariant bit differs from the label (two-bit, zin-logit; 0.25 and 0.1
    by default)."""
    spurious_flips: tuple[float, ...] | None = None
    """Probability, in each environment, that the spurious bit differs from the label. Default: 0.2
    and 0.1 (two-bit), 0.001 and 0.1 (zin-logit)."""
    test_flips: tuple[float, ...] | None = None
    """The same in the environments of the test. Default: 0.9 (two-bit); 0.001, 0.2, 0.8 and 0.999
    (zin-logit)."""
    colour: Axis[float] = 1.0
    """Size of the spurious bit (two-bit)."""
    backgrounds: tuple[float, ...] | None = None
    """Probability, in each environment, that the background agrees with the label
    (unit-test-cows); those of the source by default."""
    foregrounds: tuple[float, ...] | None = None
    """Probability of the label 1 in each environment (unit-test-cows); those of the source by
    default."""
    spurious_shifts: tuple[float, ...] | None = None
    """Factor of the spurious signal in each environment (malign-overfitting); 1 and 0 by
    default."""
    test_shifts: tuple[float, ...] | None = None
    """The same in the environments of the test (malign-overfitting); -1 and 1 by default."""
    dim_noise: int = 1200
    """Number of the inputs of noise (balancing)."""
    data_examples: int = 1000
    """Examples of the data set, all groups together, on which the measurement examples trains
    (balancing), or of the design (fixed-design)."""
    minority_share: Axis[float | None] = None
    """Share of the minority (balancing, 0.2 by default; minority-groups, 0.1 by default). An axis
    of minority-groups only."""
    balanced: bool = False
    """Whether all groups have the size of the smallest, as when the others are subsampled
    (balancing)."""
    core_scale: Axis[float] = 1.0
    """Size of the core input (balancing)."""
    noise_scale: Axis[float] = 4.0
    """Standard deviation of the inputs of noise (balancing)."""
    group_deviation: Axis[float] = 0.15
    """Standard deviation of the core and the spurious input over their size (balancing)."""
    least_margins: tuple[float, ...] | None = None
    """Least margin of majority and minority (minority-groups); 1 and 1 by default."""
    largest_margin: Axis[float] = 4.0
    """Largest margin of both (minority-groups)."""
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
