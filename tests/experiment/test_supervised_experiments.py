"""Experiments of regression by names and numbers: methods, conflicts, sweeps, theory's curve."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.experiment import SYSTEMS, Experiment, SupervisedExperiment, theory_curve
from causal_sgd.experiment._supervised._worlds import WORLDS
from causal_sgd.experiment._systems import parsed
from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.sweeps import sweep
from causal_sgd.training import objectives, run, samplers
from causal_sgd.training.algorithms import penalised
from causal_sgd.types import Key, Trace

pytestmark = pytest.mark.usefixtures("quickly_compiled")

HETERO = {"sampler": "hetero", "model": "hadamard", "learning_rate": 0.7}
WEIGHT = {"metrics": ("spurious_weight",)}


def test_an_experiment_equals_the_parts_by_hand() -> None:
    fields = {"mean": 0.4, "method": "vrex", "weight": 7.0, "learning_rate": 0.05, "steps": 20}
    cell = SupervisedExperiment(**fields, num_examples=100, **WEIGHT).cell()

    def by_hand(key: Key) -> Trace:
        algorithm = penalised(
            world=worlds.contradiction(mean=0.4),
            sampler=samplers.stratified(batch_size=1000),
            measurement=measurements.moments(100),
            model=models.linear(dim=2),
            objective=objectives.vrex(weight=7.0),
            optimizer=optax.sgd(0.05),
        )
        return run(key, algorithm=algorithm, metrics=[metrics.spurious_weight], num_steps=20)

    one, other = (jax.jit(each)(jax.random.key(1)) for each in (cell, by_hand))
    assert jnp.array_equal(one.metrics["spurious_weight"], other.metrics["spurious_weight"])
    assert float(one.metrics["spurious_weight"][-1]) > 0


# What a choice needs beside its name.
NEEDS: dict[str, dict] = {
    "eills-demo": {"num_examples": 50},
    "examples": {"num_examples": 20, "batch_size": 8},
    "fishr": {"measurement": "examples", "num_examples": 20, "batch_size": 8},
    "icp": {"num_examples": 50},
    "without": {"left_out": (1,)},
    "random-scm": {"num_examples": 50},
    "additive-scm": {"num_examples": 50},
    "drift": {"measurement": "batch-moments"},
    "redraw": {"measurement": "batch-moments", "world": "anticausal"},
    "logistic": {"world": "two-bit"},
    "exponential": {"world": "zin-logit"},
    "quadrature": {"world": "unit-test-cows"},
    "batch-projections": {"world": "unit-test-margin", "fresh_examples": 1000},
    "counts": {"world": "minority-groups"},
    "fair-gumbel": {"model": "gated"},
    "zin": {"world": "two-bit", "measurement": "counts"},
    "step": {"method": "irmv1", "restart": True, "optimizer": "adam"},
}
FIELDS = ("world", "loss", "method", "model", "measurement", "sampler", "annealing", "evolution")
CHOICES = [
    (field, name)
    for field in FIELDS
    for name in SupervisedExperiment.choices()[field]
    if name != "softmax"  # needs a file
]


@pytest.mark.parametrize(("field", "name"), CHOICES)
def test_every_choice_makes_an_experiment(field: str, name: str) -> None:
    experiment = SupervisedExperiment(**{field: name}, **NEEDS.get(name, {}), steps=3)
    shapes = jax.eval_shape(experiment.cell(), jax.random.key(0))
    assert set(shapes.metrics) == set(experiment.metrics)


@pytest.mark.slow
def test_the_weight_of_a_penalty_jumps_at_a_step() -> None:
    annealed = SupervisedExperiment(
        method="vrex", annealing="step", anneal_start=2, early_weight=0.0, weight=5.0, **WEIGHT
    )
    annealed = annealed.replace(learning_rate=0.05, steps=3, record_every=1)
    constant = annealed.replace(annealing="none", weight=0.0)
    one, other = (jax.jit(each.cell())(jax.random.key(0)).metrics for each in (annealed, constant))
    same = one["spurious_weight"] == other["spurious_weight"]
    assert same.tolist() == [True, True, True, False]


@pytest.mark.slow
def test_the_default_learning_rate_is_that_of_the_world() -> None:
    for fields, rate in (
        ({}, 0.1),
        ({"world": "sem"}, 0.01),
        ({"world": "random-scm", "num_examples": 9}, 0.002),
        ({"world": "balancing"}, 0.01),
        ({"world": "sem", "data_file": "own.csv"}, 0.1),
        ({"world": "sem", "learning_rate": 0.3}, 0.3),
    ):
        experiment = SupervisedExperiment(**fields)
        assert experiment.implied.get("learning_rate", experiment.learning_rate) == rate
    experiment = SupervisedExperiment(world="sem", steps=20, **WEIGHT)
    given = experiment.replace(learning_rate=0.01, measurement="moments")
    one, other = experiment.cell(), given.cell()
    assert vars(one)["configuration"] == vars(other)["configuration"] == given.describe()
    key = jax.random.key(3)
    assert jnp.array_equal(
        *(jax.jit(cell)(key).metrics["spurious_weight"] for cell in (one, other)), equal_nan=True
    )


@pytest.mark.slow
def test_drawn_equations_seldom_diverge_by_default() -> None:
    swept = sweep(SupervisedExperiment(world="sem", **WEIGHT).cell(), seeds=64)
    assert (swept.diverged_at < 0).all()


@pytest.mark.parametrize(
    ("fields", "measurement"),
    [
        ({"world": "two-bit"}, "moments"),
        ({"world": "two-bit", "loss": "logistic"}, "counts"),
        ({"world": "unit-test-cows", "loss": "exponential"}, "quadrature"),
        ({"data_file": "own.csv", "loss": "logistic"}, "examples"),
        ({"world": "two-bit", "loss": "logistic", "measurement": "examples"}, "examples"),
    ],
)
def test_the_default_measurement_is_exact_for_the_loss(fields: dict, measurement: str) -> None:
    experiment = SupervisedExperiment(**fields)
    assert experiment.replace(**experiment.implied).measurement == measurement
    assert "num_examples" not in experiment.implied
    changed = experiment.replace(loss="squared", measurement=None)
    assert changed.implied["measurement"] == "moments"


@pytest.mark.slow
def test_a_logistic_experiment_equals_the_parts_by_hand() -> None:
    fields = {"world": "unit-test-cows", "loss": "logistic", "method": "irmv1", "weight": 3.0}
    names = ("test_error", "worst_test_error", "training_risk")
    cell = SupervisedExperiment(**fields, metrics=names, steps=5).cell()

    def by_hand(key: Key) -> Trace:
        algorithm = penalised(
            world=worlds.unit_test_cows(used_spurious=2),
            sampler=samplers.stratified(batch_size=1000),
            measurement=measurements.quadrature(losses.logistic),
            model=models.linear(dim=10),
            objective=objectives.irmv1(weight=3.0),
            optimizer=optax.sgd(0.1),
        )
        return run(
            key, algorithm=algorithm, metrics=[getattr(metrics, n) for n in names], num_steps=5
        )

    key = jax.random.key(1)
    one = jax.jit(lambda key: cell(key, used_spurious=2))(key)
    other = jax.jit(by_hand)(key)
    for name in names:
        np.testing.assert_allclose(one.metrics[name], other.metrics[name], rtol=1e-6)
    assert 0 < one.metrics["test_error"][-1] <= one.metrics["worst_test_error"][-1] < 1


def test_the_data_set_of_balancing_is_drawn_where_it_is_trained_on() -> None:
    fields = {"world": "balancing", "dim_noise": 3, "data_examples": 40, "metrics": ("weights",)}
    key = jax.random.key(0)
    for changes, size in (
        ({"measurement": "examples", "full_batch": True}, 16),
        ({"measurement": "examples", "full_batch": True, "subsampled": True}, 16),
        ({"loss": "logistic"}, None),
        ({}, None),
    ):
        experiment = SupervisedExperiment(**fields, **changes)
        world = WORLDS.build(experiment, {})
        rows = jax.eval_shape(world, key).rows
        assert (None if rows is None else rows.labels.shape[1]) == size
        assert jax.eval_shape(experiment.cell(), key).metrics["weights"].shape == (2, 5)


def test_a_fixed_design_has_the_weights_of_its_fields() -> None:
    experiment = SupervisedExperiment(
        world="fixed-design",
        dim=4,
        dim_invariant=2,
        signal=2.0,
        mean=0.5,
        spread=3.0,
        noise=0.0,
        correlation=0.5,
        data_examples=6,
    )
    world = WORLDS.build(experiment, {})(jax.random.key(0))
    weights = np.array([[2.0, 2.0, 3.5, 0.0], [2.0, 2.0, -2.5, 0.0]])
    np.testing.assert_allclose(world.labels, weights @ np.asarray(world.inputs).T, rtol=1e-4)
    places = np.arange(4)
    covariance = 0.5 ** np.abs(places[:, None] - places)
    np.testing.assert_allclose(world.test_covariance, covariance, rtol=1e-6)
    assert world.inputs.shape == (6, 4)
    with pytest.raises(ValueError, match="dim must be at least the number of .* 3, got 2"):
        WORLDS.build(experiment.replace(dim=2), {})


def test_the_target_is_that_of_the_loss() -> None:
    for loss, weight in (("squared", 1 / 2), ("logistic", 2)):
        experiment = SupervisedExperiment(
            world="gaussian-environments", dim_invariant=1, noise=1.0, signal=1.0, loss=loss
        )
        assert WORLDS.build(experiment, {})(jax.random.key(0)).target[0] == weight


def test_an_estimator_takes_one_step_and_is_pooled_least_squares() -> None:
    experiment = SupervisedExperiment(method="pooled", steps=50, **WEIGHT)
    axes = {"mean": [0.2, 0.5], "variance": [3.0, 4.0]}
    swept = sweep(experiment.cell(), axes=axes, seeds=1).spurious_weight
    assert swept.step.values.tolist() == [0, 1]
    expected = np.array(axes["mean"])[:, None] / np.array(axes["variance"])
    np.testing.assert_allclose(swept.isel(seed=0, step=-1), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"method": "vrex", "sampler": "hetero"},
            "sampler must be 'stratified' or .* where method is 'vrex', got 'hetero': it compares",
        ),
        (
            {"method": "pooled", "evolution": "redraw", "measurement": "examples"},
            "evolution must be 'none' where method is 'pooled', got 'redraw': it fits once",
        ),
        ({"metrics": ("support",)}, "metrics must be about what method 'erm' has, got 'support'"),
        (
            {"method": "pooled", "metrics": ("sharpness",)},
            "metrics must be .* got 'sharpness', which is about methods that take steps",
        ),
        ({"metrics": ("validation_risk",)}, "num_validation must be given for the metric"),
        ({"world": "contradictoin"}, "world must be one of .* did you mean 'contradiction'"),
        (
            {"probabilities": (0.5, 0.5)},
            "probabilities must not be given where sampler is 'stratified'",
        ),
        ({"loss": "logistic"}, "world must be .* where loss is 'logistic', got 'contradiction'"),
        (
            {"loss": "logistic", "world": "two-bit", "measurement": "moments"},
            "measurement must be 'quadrature' or .* where loss is 'logistic', got 'moments'",
        ),
        (
            {"world": "two-bit", "measurement": "quadrature"},
            "world must be .* where measurement is 'quadrature', got 'two-bit'",
        ),
        (
            {"world": "zin-logit", "measurement": "batch-projections"},
            "fresh_examples must be given",
        ),
        (
            {"world": "two-bit", "loss": "logistic", "method": "icp"},
            "loss must be 'squared' where method is 'icp', got 'logistic'",
        ),
        (
            {"world": "two-bit", "loss": "logistic", "metrics": ("test_risk",)},
            "metrics must be of the loss, 'logistic', got 'test_risk'.*; use test_error",
        ),
        ({"loss": "softmax"}, "data_file must be given where loss is 'softmax', got None"),
        ({"data_file": "a.csv", "loss": "logistic", "standardise": True}, "standardise must be F"),
        ({"metrics": ("validation_error",)}, "num_validation must be given for the metric"),
        ({"metrics": ("gates",)}, "model must be 'gated' for the metric gates, got 'linear'"),
        ({"metrics": ("split",)}, "method must be 'zin' for the metric split, got 'erm'"),
        (
            {"method": "zin"},
            "measurement must be 'examples' or 'counts' where method is",
        ),
        ({"method": "fair-gumbel"}, "model must be 'gated' where method is 'fair-gumbel'"),
        ({"data_file": 3}, "data_file must be the path of an .npz or .csv file or None, got 3"),
        ({"steps": None}, "steps must be given"),
    ],
)
def test_fields_that_conflict_are_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SupervisedExperiment(**fields)


def test_messages_of_parts_name_the_field() -> None:
    key = jax.random.key(0)
    for fields, message in (
        ({"world": "chain", "dim_invariant": 0}, "dim_invariant must be"),
        ({"model": "linear-network", "width": 0}, "width must be"),
        ({"label_intercept": float("inf")}, "label_intercept must be"),
        ({"method": "vrex", "weight": -1.0}, "weight must be"),
        ({"biases": (9.0, 1.0)}, "biases must be at most"),
        ({"method": "icp"}, "num_examples must be given where method is 'icp', got None: a popu"),
        ({"world": "eills-demo"}, "num_examples must be given where world is 'eills-demo', got N"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            SupervisedExperiment(**fields).cell()(key)
    tested = SupervisedExperiment(method="icp", **WEIGHT).cell()
    assert jax.eval_shape(tested, key, num_examples=50.0), "as an axis it is given"
    balanced = SupervisedExperiment(world="balancing", **WEIGHT).cell()
    with pytest.raises(ValueError, match="minority_share must not be swept where world is 'balan"):
        balanced(key, minority_share=0.1)
    with pytest.raises(ValueError, match=r"parameter must be one of .*got 'width'"):
        SupervisedExperiment().cell()(key, width=3)


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({}, "slopes", "unless world is anticausal, got 'contradiction'"),
        ({"biases": (1.0, -1.0)}, "mean", "where biases is given"),
        ({"method": "pooled"}, "learning_rate", "where method is 'pooled', which fits in one step"),
        ({"method": "pooled"}, "steps", "where method is 'pooled', which fits in one step"),
        ({"method": "pooled"}, "clip_norm", "where method is 'pooled', which fits in one step"),
        ({"method": "pooled"}, "num_examples", None),
        (
            {"method": "zin", "world": "two-bit", "measurement": "counts"},
            "batch_size",
            "where method is 'zin', which uses all examples in every step",
        ),
        ({}, "clip_norm", None),
        ({}, "steps", None),
    ],
)
def test_fields_without_effect_are_told(fields: dict, field: str, reason: str | None) -> None:
    got = SupervisedExperiment(**fields).why_unused(field)
    assert got == reason if reason is None else reason in str(got)


def test_descriptions_say_the_system_but_of_the_first() -> None:
    for experiment in (Experiment(spread=3.0), SupervisedExperiment(method="vrex", weight=3.0)):
        assert parsed(experiment.describe()) == experiment
    assert "system" not in Experiment().describe(), "as in stores of earlier versions"
    assert SupervisedExperiment().describe()["system"] == "supervised"
    with pytest.raises(
        ValueError, match="system must be one of sensing, supervised, got 'sensign'"
    ):
        parsed({"system": "sensign"})
    with pytest.raises(ValueError, match="system must be one of sensing"):
        Experiment.parse(SupervisedExperiment().describe())
    assert list(SYSTEMS) == ["sensing", "supervised"]


def test_heterogeneous_sgd_crosses_the_boundary_of_theory() -> None:
    experiment = SupervisedExperiment(**HETERO, **WEIGHT, steps=3000)
    axes = "mean", np.linspace(0.2, 0.6, 3), "spread", np.linspace(0, 1.4, 3)
    curves = theory_curve(experiment, *axes)
    assert curves is not None
    across, up = curves["theory"]
    np.testing.assert_allclose(up, np.sqrt(2 * across / 0.7 + across**2), rtol=1e-5)
    curves = theory_curve(experiment, *axes[:2], "learning_rate", np.linspace(0.1, 1, 3))
    assert curves is not None
    across, up = curves["theory"]  # at spread 1
    np.testing.assert_allclose(up, 2 * across / (1 - across**2), rtol=1e-5)
    critical = (2 * 0.5 / 0.7 + 0.5**2) ** 0.5
    swept = sweep(experiment.cell(), axes={"spread": [0.5 * critical, 1.08 * critical]}, seeds=32)
    below, above = swept.spurious_weight.isel(step=-1).median("seed").values
    assert below > 0.01
    assert above < 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "stratified"},
        {"model": "linear"},
        {"depth": 3},
        {"signed": True},
        {"angle": 0.1},
        {"world": "anticausal"},
        {"num_examples": 100},
        {"method": "vrex", "sampler": "pooled"},
        {"method": "pooled"},
    ],
)
def test_no_curve_is_drawn_where_the_theory_is_about_something_else(changes: dict) -> None:
    experiment = SupervisedExperiment(**{**HETERO, **changes})
    axes = "mean", np.linspace(0, 1, 3), "spread", np.linspace(0, 2, 3)
    assert theory_curve(experiment, *axes) is None
