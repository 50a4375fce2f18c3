"""The environments, or a file with data of them, and how they change during a run."""

from __future__ import annotations

from types import ModuleType

from causal_sgd import checks
from causal_sgd.experiment._supervised._data_file import FROM_FILE, as_given
from causal_sgd.experiment._table import (
    NOTHING,
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
    value_of,
)

__all__ = ["BINARY", "EVOLUTIONS", "MIXTURES", "TABLES", "WORLDS"]

MIXTURES = (
    "gaussian-environments",
    "unit-test-cows",
    "unit-test-margin",
    "zin-logit",
    "balancing",
    "malign-overfitting",
)
"""The worlds of Gaussian groups."""
TABLES = ("two-bit", "minority-groups")
"""The discrete worlds."""
BINARY = (*MIXTURES, *TABLES)
"""The worlds whose labels are -1 and 1."""

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


def _target(experiment: AnyExperiment, parts: Parts) -> object:
    """The loss whose best invariant weights are the target; of classes it is the logit."""
    del parts
    return "squared" if experiment.loss == "squared" else "logistic"


def _own_examples(experiment: AnyExperiment, parts: Parts) -> object:
    """The size of the world's own data set, where its examples are trained on."""
    del parts
    trained = value_of(experiment, "measurement") == "examples"
    drawn = experiment.num_examples is not None or experiment.fresh_examples is not None
    return experiment.data_examples if trained and not drawn else NOTHING


TARGET = Computed(_target, ("loss",))


def _both_unless(replacement: str) -> dict[str, str | Source]:
    """Mean and spread of two environments, which values of any environments replace."""
    return {name: unless(replacement, name) for name in ("mean", "spread")}


def _regression_weights(experiment: AnyExperiment, parts: Parts) -> object:
    """Weights [2, p]: of the signal, mean +- spread, and zeros."""
    import jax.numpy as jnp

    del parts
    kept, shaken = experiment.dim_invariant or 1, experiment.dim_spurious or 1
    zeros = (experiment.dim or kept + shaken) - kept - shaken
    if zeros < 0:
        raise ValueError(
            "dim must be at least the number of invariant and spurious inputs, "
            f"{kept + shaken}, got {experiment.dim}"
        )
    rows = [
        jnp.repeat(
            jnp.stack([jnp.asarray(value, float) for value in (experiment.signal, biased, 0)]),
            jnp.array([kept, shaken, zeros]),
            total_repeat_length=kept + shaken + zeros,
        )
        for biased in (experiment.mean + experiment.spread, experiment.mean - experiment.spread)
    ]
    return jnp.stack(rows)


def _autoregressive(experiment: AnyExperiment, parts: Parts) -> object:
    """The covariance correlation^|i - j| [p, p]; None without a correlation."""
    import jax.numpy as jnp

    del parts
    if checks.is_zero(experiment.correlation):
        return None
    kept, shaken = experiment.dim_invariant or 1, experiment.dim_spurious or 1
    places = jnp.arange(experiment.dim or kept + shaken)
    distances = jnp.abs(places[:, None] - places[None, :])
    return jnp.asarray(experiment.correlation, float) ** distances


REGRESSION = {
    "weights": Computed(
        _regression_weights, ("mean", "spread", "signal", "dim_invariant", "dim_spurious", "dim")
    ),
    "covariance": Computed(_autoregressive, ("correlation", "dim")),
}

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
            training=as_given("training"),
            dim="dim_invariant",
            hidden="hidden_cause",
            hetero="hetero_noise",
            ones="ones",
        ),
        "unit-test-regression": option(
            PLACEMENT,
            "dim_spurious",
            "used_spurious",
            "scales",
            "num_environments",
            dim_causal="dim_invariant",
        ),
        "unit-test-cows": option(
            "dim_spurious",
            "used_spurious",
            "backgrounds",
            "foregrounds",
            "num_environments",
            "scramble",
            "probabilities",
            dim_causal="dim_invariant",
        ),
        "unit-test-margin": option(
            "dim_spurious",
            "used_spurious",
            "num_environments",
            "scramble",
            "probabilities",
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
            target=TARGET,
            dim_causal="dim_invariant",
        ),
        "regression": option(REGRESSION, "noise", "probabilities"),
        "fixed-design": option(
            REGRESSION,
            "noise",
            "shared_noise",
            "probabilities",
            num_examples="data_examples",
        ),
        "single-index": option(REGRESSION, "link", "noise", "probabilities"),
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
        "additive-scm": option(
            "least_bias",
            "rejection_examples",
            "candidates",
            "probabilities",
            label="label_function",
        ),
        "zin-logit": option(
            "dim_spurious",
            "invariant_flip",
            "spurious_flips",
            "test_flips",
            "noise",
            "scramble",
            "probabilities",
            target=TARGET,
            dim_causal="dim_invariant",
        ),
        "balancing": option(
            "dim_noise",
            "core_scale",
            "spurious_scale",
            "noise_scale",
            "balanced",
            num_examples=Computed(_own_examples, ("data_examples",)),
            minority="minority_share",
            deviation="group_deviation",
        ),
        "malign-overfitting": option(
            "dim",
            "signal",
            "spurious_signal",
            "noise",
            "probabilities",
            shifts="spurious_shifts",
            test_shifts="test_shifts",
        ),
        "minority-groups": option(
            "minority_share", "nodes", margins="least_margins", largest="largest_margin"
        ),
    },
    replacement=("data_file", FROM_FILE),
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
