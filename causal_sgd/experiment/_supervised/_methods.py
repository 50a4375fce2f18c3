"""The methods: objectives that are minimised step by step, and estimators that fit in one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd import checks
from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import (
    AnyExperiment,
    Computed,
    Option,
    Parts,
    Requirement,
    Source,
    Table,
    absent,
    given,
    one_of,
    only,
    option,
    part,
)
from causal_sgd.experiment._training import (
    STEP_FIELDS,
    average_of,
    averaging,
    evaluation,
    stepping,
)

__all__ = ["ALGORITHMS", "ANNEALING", "ESTIMATORS", "METHODS", "MethodFields"]


def _objectives() -> ModuleType:
    from causal_sgd.training import objectives

    return objectives


def _estimators() -> ModuleType:
    from causal_sgd.supervised import estimators

    return estimators


def _algorithms() -> ModuleType:
    from causal_sgd.training import algorithms

    return algorithms


SEVERAL = one_of(
    "sampler",
    ("stratified", "pooled", "mixed"),
    "it compares the environments of a batch",
)
FIT = (
    only("loss", "squared", "it is about least squares"),
    one_of("measurement", ("moments", "examples"), "it fits all examples of all environments"),
    only("evolution", "none", "it fits once"),
)


HEAD = one_of("model", ("featurised", "linear", "linear-network"), "its penalty is of a head")


def _objective(
    *fields: str | Mapping[str, str | Source], requires: tuple[Requirement, ...] = ()
) -> Option:
    """A row of an objective with a penalty."""
    return option("weight", "risk_weight", *fields, requires=requires)


def _estimator(
    *fields: str | Mapping[str, str | Source], requires: tuple[Requirement, ...] = ()
) -> Option:
    """A row of an estimator."""
    return option(*fields, requires=FIT + requires, module=_estimators)


def _underscored(field: str) -> Computed:
    """The name that a field holds, as Python spells it."""
    return Computed(
        lambda experiment, parts: getattr(experiment, field).replace("-", "_"), (field,)
    )


def _left_out() -> Computed:
    return Computed(lambda experiment, parts: experiment.left_out, ("left_out",))


LEFT_OUT = (given("left_out", "it names the inputs that the method leaves out"),)
SEARCH: dict[str, str | Source] = {
    "penalty": "set_penalty",
    "search": "search",
    "intercept": "intercept",
}


METHODS = Table(
    "method",
    "method",
    _objectives,
    {
        "erm": option(factory="mean", curve=True),
        "irm": _objective(requires=(HEAD,)),
        "irmv1": _objective({"intercept": "intercept_penalty", "halves": "halves"}),
        "birm": _objective("deviation", {"draws": "scale_draws"}),
        "vrex": _objective(requires=(SEVERAL,)),
        "group-dro": _objective({"rate": "group_rate"}),
        "iga": _objective(requires=(SEVERAL,)),
        "andmask": option(
            "threshold", "risk_weight", variant=_underscored("mask"), requires=(SEVERAL,)
        ),
        "sandmask": option(
            "threshold", "risk_weight", sharpness="mask_sharpness", requires=(SEVERAL,)
        ),
        "fishr": _objective({"decay": "variance_decay"}, requires=(SEVERAL,)),
        "coral": _objective(requires=(SEVERAL,)),
        "sd": _objective(),
        "fair-gumbel": Option(
            None,
            requires=(
                only("loss", "squared", "its critics fit residuals"),
                only("model", "gated", "it chooses inputs by their gates"),
                only("average", "none", "it has no average"),
                absent("sam_radius", "it plays a game of several losses"),
            ),
        ),
        "zin": Option(
            None,
            requires=(
                one_of("measurement", ("examples", "counts"), "it weighs every example"),
                only("evolution", "none", "its examples stay"),
                only("average", "none", "it has no average"),
                absent("sam_radius", "it trains a split, too"),
            ),
        ),
        "pooled": _estimator("intercept"),
        "oracle": _estimator("intercept"),
        "without": _estimator("intercept", {"inputs": _left_out()}, requires=LEFT_OUT),
        "anchor": _estimator("intercept", {"strength": "anchor_strength"}),
        "causal-dantzig": _estimator(),
        "icp": _estimator(
            {
                "level": "test_level",
                "correction": _underscored("correction"),
                "intercept": "test_intercept",
                "empty": "empty_set",
            }
        ),
        "regression-invariance": _estimator({"level": "test_level", "intercept": "test_intercept"}),
        "eills": _estimator("gamma", SEARCH, "refit"),
        "fair": _estimator("gamma", SEARCH),
    },
)
ESTIMATORS = tuple(name for name, row in METHODS.options.items() if row.module is _estimators)
"""The methods that fit in one step, without a model, a sampler and an optimizer."""

PENALISED = tuple(name for name, row in METHODS.options.items() if "weight" in row.fields)


def _weighted(experiment: AnyExperiment, parts: Parts) -> Callable[..., object]:
    """The objective as a function of its weight."""
    return lambda weight: METHODS.build(experiment.replace(weight=weight), parts)


def _early(experiment: AnyExperiment, parts: Parts) -> object:
    del parts
    return {"weight": checks.number("early_weight", experiment.early_weight, minimum=0)}


ANNEALING = Table(
    "annealing",
    "annealed",
    _objectives,
    {
        "none": Option(None, curve=True),
        "step": option(
            factory="annealed",
            objective=Computed(_weighted, ("weight",)),
            start="anneal_start",
            before=Computed(_early, ("early_weight",)),
            after=Computed(lambda experiment, parts: {"weight": experiment.weight}, ("weight",)),
            requires=(one_of("method", PENALISED, "it changes the weight of a penalty"),),
        ),
    },
)


def _optimizer(experiment: AnyExperiment, parts: Parts) -> object:
    from causal_sgd.experiment import _optimizers
    from causal_sgd.training import optimizers

    if experiment.annealing == "none" or not experiment.restart:
        return averaging(experiment, parts)
    restarted = optimizers.restarted(stepping(experiment, parts), at=experiment.anneal_start)
    return _optimizers.chain(restarted, average_of(parts))


DATA: dict[str, str | Source] = {"world": part("world"), "measurement": part("measurement")}
TRAINED: dict[str, str | Source] = DATA | {
    "sampler": part("sampler"),
    "model": part("model"),
    "optimizer": Computed(_optimizer, (*STEP_FIELDS, "restart")),
    "evaluate": Computed(evaluation),
    "evolve": part("evolve"),
}

GAME = {name: source for name, source in TRAINED.items() if name != "evaluate"}
SPLIT = {name: GAME[name] for name in ("world", "measurement", "model", "optimizer")}


def _penalty(experiment: AnyExperiment, parts: Parts) -> object:
    del experiment
    return parts["method"] if parts["annealed"] is None else parts["annealed"]


def _algorithm(name: str) -> Option:
    """The row of the algorithm that a method needs."""
    if name in ESTIMATORS:
        return option(DATA, factory="fitted", estimator=part("method"))
    if name == "erm":
        return option(TRAINED, factory="sgd", curve=True)
    if name == "fair-gumbel":
        return option(GAME, "weight", "adversary_steps", factory="fair")
    if name == "zin":
        own = {"start": "anneal_start", "hidden": "split_width"}
        return option(SPLIT, "weight", "auxiliary", own)
    return option(TRAINED, factory="penalised", objective=Computed(_penalty))


ALGORITHMS = Table(
    "method", "algorithm", _algorithms, {name: _algorithm(name) for name in METHODS.options}
)

if TYPE_CHECKING:
    MethodName = AnnealingName = str
else:
    MethodName = Literal[tuple(METHODS.options)]
    AnnealingName = Literal[tuple(ANNEALING.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodFields:
    """The method and its numbers."""

    method: MethodName = "erm"
    """What finds the predictor. Step by step: erm (the mean loss; HeteroSGD with the sampler
    hetero), or with a penalty irm, irmv1, birm, vrex, iga, fishr, coral, sd, with weights of
    environments or signs group-dro, andmask, sandmask, as a game of gates against critics
    fair-gumbel (model gated), or between two inferred environments zin. In one step, without a
    model, a sampler and an optimizer: pooled least squares, oracle (on the causal inputs),
    without (on all inputs but some), anchor, causal-dantzig, icp, regression-invariance, eills,
    fair (the last four search all sets of up to 15 inputs)."""
    weight: Axis[float] = 1.0
    """Weight of the penalty (of the weighted loss in group-dro, of the critics in fair-gumbel), for
    losses on the scale of the option loss."""
    adversary_steps: int = 3
    """Updates of the critics in a step (fair-gumbel)."""
    auxiliary: Literal["time", "free"] = "time"
    """What environments are inferred from (zin): time, the place of an example among all, or free,
    a number of its own for each (EIIL)."""
    split_width: int = 16
    """Width of the network that infers them (zin)."""
    risk_weight: Axis[float | None] = None
    """Weight of the mean loss beside the penalty. Default: 1, and 0 in group-dro."""
    annealing: AnnealingName = "none"
    """Whether the weight of the penalty changes during a run: step (from early-weight to weight
    after anneal-start steps)."""
    anneal_start: Axis[int] = 100
    """Steps before the weight of the penalty changes (step), or while environments are inferred
    without a penalty (zin)."""
    early_weight: Axis[float] = 1.0
    """Weight of the penalty until then (step)."""
    restart: bool = False
    """Whether the optimizer forgets its state there (step)."""
    intercept_penalty: bool = False
    """Whether the derivative in an added number belongs to the penalty (irmv1)."""
    halves: bool = False
    """Whether the penalty is the unbiased product of two halves of a fresh batch (irmv1)."""
    deviation: Axis[float] = 0.1
    """Standard deviation of the random scale (birm)."""
    scale_draws: int | None = None
    """Random scales of a step (birm); their exact mean by default."""
    group_rate: Axis[float] = 0.01
    """Rate of the weights of the environments (group-dro)."""
    threshold: Axis[float] = 1.0
    """Agreement of signs, from 0 to 1, beyond which an entry is trained (andmask, sandmask)."""
    mask: Literal["domainbed", "unit-tests"] = "domainbed"
    """Variant of the mask (andmask)."""
    mask_sharpness: Axis[float] = 1.0
    """Sharpness of the smooth mask (sandmask)."""
    variance_decay: Axis[float] = 0.95
    """Decay of the sum of gradients' variances (fishr)."""
    left_out: tuple[int, ...] | None = None
    """Inputs that are left out, from 0 (without)."""
    anchor_strength: Axis[float] = 1.0
    """Weight of the environments' mean residuals (anchor)."""
    test_level: Axis[float] = 0.05
    """Level of the tests (icp, regression-invariance)."""
    correction: Literal["bonferroni", "environments", "environments-minus-one"] = "bonferroni"
    """How p-values are corrected for several environments (icp)."""
    test_intercept: bool = True
    """Whether the tested regressions have an intercept (icp, regression-invariance)."""
    empty_set: bool = True
    """Whether the empty set may be accepted (icp)."""
    gamma: Axis[float] = 20.0
    """Weight of the invariance (eills, fair)."""
    set_penalty: Axis[float] = 0.0
    """Penalty of each chosen input (eills, fair)."""
    search: Literal["exact", "greedy"] = "exact"
    """Whether all sets are visited, or inputs are added and removed one at a time (eills, fair)."""
    refit: bool = False
    """Whether the chosen inputs are fitted again by pooled least squares (eills)."""
