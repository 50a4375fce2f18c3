"""The signals of the environments, and how they change during a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd import checks
from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import (
    Computed,
    Option,
    Parts,
    Replaced,
    Source,
    Table,
    absent,
    either,
    first_of,
    option,
    part,
)

if TYPE_CHECKING:
    from causal_sgd.experiment import Experiment
    from causal_sgd.types import Array

__all__ = ["EVOLUTIONS", "FAMILIES", "WorldFields"]


def _dim(experiment: Experiment, parts: Parts) -> object:
    """The rows in which a world is drawn; order parameters need those of its signals alone."""
    return parts["frame" if experiment.model == "order-parameters" else "dim"]


SIGNALS: dict[str, str | Source] = {
    "dim": Computed(_dim, ("dim",)),
    "invariant_rank": "invariant_rank",
    "spurious_rank": "spurious_rank",
    "invariant_spectrum": first_of("invariant_spectrum", "invariant_eigenvalue"),
    "probabilities": "probabilities",
    "basis": "basis",
    "tilt": "tilt",
    "rotation": "rotation",
}
SPECTRUM: dict[str, str | Source] = {
    "mean": first_of("means", "mean"),
    "spread": first_of("spreads", "spread"),
}
NO_EIGENVALUES = (
    absent("eigenvalues", "only the discrete family takes its eigenvalues as given"),
    absent("deviations", "only the discrete family takes its deviations as given"),
)


def _shifted(experiment: WorldFields, parts: object) -> object:
    """The eigenvalues mean + spread z_e [E] of given deviations."""
    import jax.numpy as jnp

    del parts
    checks.number("spread", experiment.spread, minimum=0)
    return experiment.mean + experiment.spread * jnp.asarray(experiment.deviations, float)


def _number(default: int | None) -> Computed:
    """The number of environments; one is enough where every step draws them anew."""

    def number(experiment: WorldFields, parts: object) -> int | None:
        if experiment.num_environments is not None:
            return experiment.num_environments
        return 1 if experiment.evolution == "redraw" else default

    return Computed(number, ("num_environments",))


def _family(
    *fields: str | Mapping[str, str | Source], curve: bool = False, number: int | None = 100
) -> Option:
    """A row of a family with a mean and a spread."""
    return option(
        SIGNALS,
        SPECTRUM,
        {"num_environments": _number(number)},
        *fields,
        requires=NO_EIGENVALUES,
        curve=curve,
    )


def _drift_rate(experiment: Experiment, parts: object) -> float | Array:
    return checks.representable("mean_drift / steps", experiment.mean_drift / experiment.steps)


def _worlds() -> ModuleType:
    from causal_sgd.sensing import worlds

    return worlds


def _nonstationary() -> ModuleType:
    from causal_sgd.sensing import nonstationary

    return nonstationary


FAMILIES = Table(
    "family",
    "world",
    _worlds,
    {
        "two-point": _family(
            # Redrawn signs are random; otherwise every pattern of signs occurs.
            {"balanced": Computed(lambda experiment, parts: experiment.evolution != "redraw")},
            curve=True,
            number=None,
        ),
        "uniform": _family(curve=True),
        "gaussian": _family(curve=True),
        "log-normal": _family(),
        "goe": _family("coupling"),
        "discrete": option(
            SIGNALS,
            eigenvalues=Replaced(
                "eigenvalues", Computed(_shifted, ("deviations", "mean", "spread"))
            ),
            requires=(either("eigenvalues", "deviations", "the family takes them as they are"),),
            curve=True,
        ),
    },
    replacement=("world_file", option(factory="from_file", path="world_file")),
)

EVOLUTIONS = Table(
    "evolution",
    "evolve",
    _nonstationary,
    {
        "none": Option(None, curve=True),
        "redraw": option(
            world=part("world"),
            probability="redraw_probability",
            requires=(absent("world_file", "there is no family to draw from"),),
            curve=True,
        ),
        "drift": option(rate=Computed(_drift_rate, ("mean_drift",))),
        "rotate": option(angle="rotation_angle"),
    },
)

if TYPE_CHECKING:
    FamilyName = EvolutionName = str
else:
    FamilyName = Literal[tuple(FAMILIES.options)]
    EvolutionName = Literal[tuple(EVOLUTIONS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldFields:
    """The family of the world and its numbers."""

    family: FamilyName = "two-point"
    """Spurious signals. Eigenvalues may be two-point (mean +- spread), uniform (half-width spread),
    gaussian or log-normal (positive; both with standard deviation spread) or discrete (given by
    eigenvalues or deviations); goe draws whole matrices without a common eigenbasis."""
    dim: Axis[int] = 50
    """Size d of the d x d signals; an axis with the model order-parameters only."""
    invariant_rank: int = 3
    """Rank r1 of the shared signal A*."""
    spurious_rank: int = 3
    """Number r2 of spurious directions."""
    mean: Axis[float] = 1.0
    """Mean of the spurious eigenvalues, over the environments."""
    spread: Axis[float] = 6.0
    """Heterogeneity M: how far the spurious eigenvalues lie from their mean."""
    means: tuple[float, ...] | None = None
    """Mean of each spurious direction; replaces mean."""
    spreads: tuple[float, ...] | None = None
    """Heterogeneity of each spurious direction; replaces spread."""
    eigenvalues: tuple[float, ...] | None = None
    """Spurious eigenvalue of each environment (discrete), as in --eigenvalues=-2,1,4."""
    deviations: tuple[float, ...] | None = None
    """Deviation z_e of each environment, whose spurious eigenvalue is mean + spread z_e (discrete);
    in place of eigenvalues, so that mean and spread may be axes."""
    rotation: Axis[float] = 0.0
    """How far each environment rotates its spurious eigenbasis, from 0 (the same in all) to 1
    (drawn for each)."""
    coupling: Axis[float] = 1.0
    """Factor of the off-diagonal entries, from 0 (as gaussian) to 1 (goe)."""
    invariant_eigenvalue: Axis[float] = 1.0
    """All eigenvalues of A*."""
    invariant_spectrum: tuple[float, ...] | None = None
    """Eigenvalues of A*, one for each rank; replaces invariant-eigenvalue."""
    num_environments: int | None = None
    """Number of environments. Default: every pattern of signs (two-point), otherwise 100; 1 with
    redraw."""
    probabilities: tuple[float, ...] | None = None
    """Probability of each environment; uniform by default."""
    basis: Literal["random", "canonical"] = "random"
    """Directions of the signals."""
    tilt: Axis[float] = 0.0
    """Angle in radians by which the spurious directions lean towards the invariant ones."""
    world_file: Path | None = None
    """An .npz file with arrays invariant [d,d], spurious [E,d,d] and optionally probabilities [E];
    replaces the family."""
    evolution: EvolutionName = "none"
    """How the world changes before every step: redraw (environments are drawn anew), drift (the
    mean moves), rotate (the spurious directions rotate at random)."""
    redraw_probability: Axis[float] = 1.0
    """Probability that an environment is drawn anew before a step (redraw)."""
    mean_drift: Axis[float] = 0.0
    """How far the spurious mean moves over the whole run (drift)."""
    rotation_angle: Axis[float] = 0.01
    """Angle in radians by which the spurious directions rotate in a step (rotate)."""
