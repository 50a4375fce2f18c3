"""The contract rows of the second system: for each name in the `__all__` of a room, its arguments.

A member without a row fails `supervised/test_supervised_contracts.py::test_every_member_has_a_row`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.supervised import (
    estimators,
    losses,
    measurements,
    metrics,
    models,
    nonstationary,
    worlds,
)
from causal_sgd.training import objectives
from support.contracts import Row
from support.networks import apply_mlp, init_mlp

DIM = 2  # inputs of the worlds below
BIASES = np.array([1.5, -0.5, 0.7], np.float32)
EFFECTS = np.array([[0, 1.5, 0], [0, 0, -0.5], [0, 0, 0]], np.float32)  # node 0 -> 1 -> 2
ROWS = np.random.default_rng(0).normal(size=(12, 3))
MLP = models.network(init_mlp, apply_mlp)


def normal_draws(key: jax.Array, environment: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Two inputs, and a label that follows the second one with another sign in odd environments."""
    x = jax.random.normal(key, (size, DIM))
    return x, x[:, 0] + (-1.0) ** environment * x[:, 1]


WORLDS = {
    "additive_scm": Row({"rejection_examples": 200}, {"least_bias": 0.1}, {"least_bias": 1e4}),
    "contradiction": Row(
        {}, {"biases": BIASES, "variance": 4.0}, {"biases": BIASES, "variance": 3.0}, random=False
    ),
    "anticausal": Row(
        {"scramble": True},
        {"slopes": BIASES, "spurious_noise": 1.0},
        {"slopes": BIASES, "spurious_noise": 0.5},
    ),
    "balancing": Row(
        {"dim_noise": 3, "num_examples": 20},
        {"spurious_scale": 4.0, "noise_scale": 2.0, "deviation": 0.15},
        {"spurious_scale": 2.0, "noise_scale": 2.0, "deviation": 0.1},
    ),
    "coloured_digits": Row(
        {"images": (np.abs(ROWS), np.arange(12) % 10), "encoding": "chroma", "test_share": 0.25},
        {"invariant_flip": 0.25, "spurious_flips": np.array([0.1, 0.6], np.float32)},
        {"invariant_flip": 0.5, "spurious_flips": np.array([0.1, 0.6], np.float32)},
    ),
    "chain": Row(
        {"hidden": True, "ones": False, "scramble": True},
        {"scales": np.array([0.2, 2.0, 5.0], np.float32)},
        {"scales": np.array([0.3, 2.0, 4.0], np.float32)},
    ),
    "eills_demo": Row(
        {},
        {"probabilities": np.array([0.5, 0.5], np.float32)},
        {"probabilities": np.array([0.25, 0.75], np.float32)},
        random=False,
    ),
    "fixed_design": Row(
        {"num_examples": 4},
        {"weights": BIASES[:, None] * np.ones(2, np.float32), "noise": 1.0},
        {"weights": BIASES[:, None] * np.ones(2, np.float32), "noise": 2.0},
    ),
    "from_arrays": Row(
        {
            "x": ROWS[:, :2],
            "y": ROWS[:, 2],
            "environment": np.array(["a", "b", "a"] * 4),
            "causal": [0],
        },
        {"probabilities": np.array([0.5, 0.5], np.float32)},
        {"probabilities": np.array([0.25, 0.75], np.float32)},
        random=False,
    ),
    "from_draws": Row(
        {"draw": normal_draws, "num_environments": 2, "num_tests": 1, "test_examples": 9},
        {"probabilities": np.array([0.5, 0.5], np.float32)},
        {"probabilities": np.array([0.25, 0.75], np.float32)},
    ),
    "from_moments": Row(
        {"second": np.stack([np.diag([1.0, 2.0, 3.0, 1.0]), np.eye(4)])},
        {"counts": np.array([20.0, 30.0], np.float32), "target": np.zeros(2, np.float32)},
        {"counts": np.array([20.0, 40.0], np.float32), "target": np.ones(2, np.float32)},
        random=False,
    ),
    "from_equations": Row(
        {
            "interventions": [
                [worlds.Intervention("do", 0, 1.0, 2.0)],
                [worlds.Intervention("shift", 2, 2.0), worlds.Intervention("scale", 1, factor=2.0)],
            ],
            "tests": [[worlds.Intervention("shift", 0, -1.0)]],
            "label": 1,
        },
        {"weights": EFFECTS, "variances": 1.0, "means": np.array([0.5, 0, 1], np.float32)},
        {"weights": -EFFECTS, "variances": 2.0, "means": np.array([0.5, 0, 1], np.float32)},
        random=False,
    ),
    "gaussian_environments": Row(
        {"scramble": True},
        {"signal": 1.0, "spurious_scale": 1.0},
        {"signal": 0.5, "spurious_scale": 1.0},
    ),
    "minority_groups": Row(
        {"nodes": 8},
        {"minority_share": 0.1, "margins": np.array([1.0, 2.0], np.float32)},
        {"minority_share": 0.3, "margins": np.array([1.0, 1.5], np.float32)},
        random=False,
    ),
    "malign_overfitting": Row(
        {"dim": 3},
        {"signal": 1.0, "shifts": np.array([1.0, 0.0], np.float32), "noise": 1.0},
        {"signal": 0.5, "shifts": np.array([1.0, 0.0], np.float32), "noise": 2.0},
        random=False,
    ),
    "on_tests": Row({"factory": worlds.gaussian_environments()}, {}, {}),
    "random_scm": Row(
        {"dim": 7, "rejection_examples": 200}, {"least_bias": 0.1}, {"least_bias": 1e4}
    ),
    "regression": Row(
        {},
        {"weights": np.diag(BIASES), "covariance": np.eye(3, dtype=np.float32)},
        {"weights": np.diag(BIASES), "covariance": np.diag(BIASES**2)},
        random=False,
    ),
    "sem": Row(
        {"dim": 4, "scramble": True},
        {"degree": 2.7, "shift": 1.0, "shift_variance": 1.0},
        {"degree": 2.7, "shift": 2.0, "shift_variance": 0.5},
    ),
    "separable": Row(
        {},
        {"points": np.array([[[1, 5], [2, 1]], [[1, -3], [2, 3]]], np.float32)},
        {"points": np.array([[[1, 4], [2, 1]], [[1, -2], [2, 3]]], np.float32)},
        random=False,
    ),
    "single_index": Row(
        {"link": "sine"},
        {"weights": np.diag(BIASES), "covariance": np.eye(3, dtype=np.float32)},
        {"weights": np.diag(BIASES), "covariance": np.diag(BIASES**2)},
        random=False,
    ),
    "two_bit": Row(
        {},
        {"invariant_flip": 0.1, "spurious_flips": np.array([0.2, 0.25], np.float32)},
        {"invariant_flip": 0.2, "spurious_flips": np.array([0.2, 0.25], np.float32)},
        random=False,
    ),
    "unit_test_cows": Row(
        {"dim_spurious": 3, "num_environments": 4, "scramble": True},
        {"used_spurious": 2.0, "backgrounds": np.array([0.95, 0.97, 0.99, 0.9], np.float32)},
        {"used_spurious": 3.0, "backgrounds": np.array([0.95, 0.97, 0.99, 0.9], np.float32)},
    ),
    "unit_test_margin": Row(
        {"dim_spurious": 3, "num_environments": 4},
        {"used_spurious": 2.0},
        {"used_spurious": 3.0},
    ),
    "unit_test_regression": Row(
        {"dim_spurious": 3, "scramble": True},
        {"scales": np.array([0.1, 1.5, 2.0], np.float32)},
        {"scales": np.array([0.1, 1.0, 2.0], np.float32)},
    ),
    "zin_logit": Row(
        {"dim_causal": 2, "dim_spurious": 1, "target": "logistic", "scramble": True},
        {"invariant_flip": 0.1, "noise": 1.0},
        {"invariant_flip": 0.2, "noise": 0.5},
    ),
}
NONSTATIONARY = {
    "drift": Row({}, {"rate": 0.1}, {"rate": -0.2}, random=False),
    "redraw": Row(
        {"world": worlds.contradiction(biases=-BIASES)},
        {"probability": 1.0},
        {"probability": 0.0},
        random=False,
    ),
}
MEASUREMENTS = {
    "moments": Row({}, {"num_examples": 100}, {"num_examples": 1000}),
    "batch_moments": Row(),
    "batch_directions": Row(),
    "batch_projections": Row({"max_examples": 10}),
    "counts": Row({}, {"num_examples": 100}, {"num_examples": 1000}),
    "examples": Row({"num_examples": 20}, {"label_noise": 0.0}, {"label_noise": 1.0}),
    "quadrature": Row({"nodes": 8}),
}
PREDICTIONS, LABELS = np.array([0.5, -2.0]), np.array([1.0, -1.0])
LOSSES = {
    name: Row(
        {},
        {"predictions": PREDICTIONS, "labels": LABELS},
        {"predictions": PREDICTIONS, "labels": -LABELS},
        random=False,
    )
    for name in ("exponential", "logistic", "squared")
} | {
    "softmax": Row(
        {},
        {"predictions": np.outer(PREDICTIONS, LABELS), "labels": np.array([0, 1])},
        {"predictions": np.outer(PREDICTIONS, LABELS), "labels": np.array([1, 1])},
        random=False,
    )
}
MODELS = {
    "linear": Row({"dim": DIM}, {"init_scale": 0.1}, {"init_scale": 0.2}),
    "hadamard": Row(
        {"dim": DIM, "depth": 3}, {"init_scale": 0.1}, {"init_scale": 0.2}, random=False
    ),
    "linear_network": Row({"dim": DIM, "hidden": 3}, {"init_scale": 0.1}, {"init_scale": 0.2}),
    "featurised": Row({"dim": DIM}, random=False),
    "products": Row(
        {"dim": DIM}, {"init_scales": (0.1, 0.0)}, {"init_scales": (0.2, 0.5)}, random=False
    ),
    "gated": Row({"dim": DIM, "init_scale": 0.5}, {"init_logit": -3.0}, {"init_logit": 1.0}),
    "input_gates": Row(
        {"network": MLP, "groups": ["signal", "colour"]}, {"start": 0.7}, {"start": 0.5}
    ),
    "network": Row({"init": init_mlp, "apply": apply_mlp}),
}
ESTIMATORS = {
    "anchor": Row({"intercept": True}, {"strength": 4.0}, {"strength": 0.0}),
    "causal_dantzig": Row(),
    "eills": Row({}, {"gamma": 1.0, "penalty": 0.0}, {"gamma": 0.0, "penalty": 0.1}),
    "fair": Row({}, {"gamma": 0.0, "penalty": 0.0}, {"gamma": 30.0, "penalty": 0.1}),
    "icp": Row({}, {"level": 0.05}, {"level": 0.9}),
    "oracle": Row({"intercept": True}),
    "pooled": Row(),
    "regression_invariance": Row({}, {"level": 0.01}, {"level": 0.99}),
    "within": Row({}, {"chosen": np.array([True, False])}, {"chosen": np.array([False, True])}),
    "without": Row({"inputs": [1]}),
}
WEIGHTS = {"weight": 10.0, "risk_weight": 1.0}
OTHER_WEIGHTS = {"weight": 1.0, "risk_weight": 0.5}
OBJECTIVES = {
    "mean": Row(),
    "vrex": Row({}, WEIGHTS, OTHER_WEIGHTS),
    "sd": Row({}, WEIGHTS, OTHER_WEIGHTS),
    "irm": Row({}, WEIGHTS, OTHER_WEIGHTS),
    "irmv1": Row({"intercept": True}, WEIGHTS, OTHER_WEIGHTS),
    "birm": Row({"draws": 3}, {**WEIGHTS, "deviation": 0.5}, {**WEIGHTS, "deviation": 0.1}),
    "group_dro": Row({}, {**WEIGHTS, "rate": 0.5}, {**WEIGHTS, "rate": 0.1}),
    "iga": Row({}, WEIGHTS, OTHER_WEIGHTS),
    "andmask": Row(
        {}, {"threshold": 0.5, "risk_weight": 2.0}, {"threshold": 0.5, "risk_weight": 1.0}
    ),
    "sandmask": Row(
        {}, {"threshold": 0.1, "sharpness": 0.1}, {"threshold": 0.1, "sharpness": 0.01}
    ),
    "fishr": Row({}, {**WEIGHTS, "decay": 0.9}, {**WEIGHTS, "decay": 0.5}),
    "coral": Row({}, WEIGHTS, OTHER_WEIGHTS),
    "annealed": Row(
        {"objective": objectives.irmv1},
        {"start": 1, "before": 0.5, "after": 2.0},
        {"start": 0, "before": 0.5, "after": 2.0},
    ),
}
OF_INTERVENTIONS = {"reliance", "flip_accuracy"}
"""Members of the room of metrics that make one of a user's function."""
OTHERS = {
    "worlds": {"recoloured"},
    "estimators": {"accepted_sets"},
    "objectives": {"from_value"},
    "metrics": {"split"} | OF_INTERVENTIONS,
    "models": {"from_equinox", "from_flax"},
}
"""Members of rooms that are not made of numbers, or need another package: tested elsewhere."""

# The shape of each metric: E environments, T of the test, p inputs.
METRICS: dict[str, tuple[str, ...]] = {
    "accepted_sets": (),
    "accuracies": ("T",),
    "accuracy": (),
    "batch_loss": (),
    "causal_error": (),
    "environment_losses": ("E",),
    "estimation_error": (),
    "exact_support": (),
    "failed": (),
    "gates": ("p",),
    "interval_high": ("p",),
    "interval_low": ("p",),
    "invariance_gap": (),
    "l1_norm": (),
    "margin": (),
    "noncausal_error": (),
    "risk_spread": (),
    "spurious_selected": (),
    "spurious_weight": (),
    "support": ("p",),
    "support_error": (),
    "test_error": (),
    "test_errors": ("T",),
    "test_losses": ("T",),
    "training_accuracies": ("E",),
    "training_accuracy": (),
    "training_error": (),
    "validation_error": (),
    "weights": ("p",),
    "test_risk": (),
    "training_risk": (),
    "true_selected": (),
    "validation_risk": (),
    "worst_accuracy": (),
    "worst_test_error": (),
    "worst_test_risk": (),
}
OF_SIGNS = ("_error", "_errors", "margin", "accuracy", "accuracies", "test_losses")
ERRORS = {name for name in METRICS if name.endswith(OF_SIGNS)} - {
    "causal_error",
    "estimation_error",
    "noncausal_error",
    "support_error",
}
"""The shares of right and wrong signs, losses and the margin of a test of signs."""
ROOMS: dict[str, tuple[ModuleType, dict[str, Row]]] = {
    "worlds": (worlds, WORLDS),
    "losses": (losses, LOSSES),
    "nonstationary": (nonstationary, NONSTATIONARY),
    "measurements": (measurements, MEASUREMENTS),
    "models": (models, MODELS),
    "estimators": (estimators, ESTIMATORS),
    "objectives": (objectives, OBJECTIVES),
}
METRIC_ROOMS = {"metrics": (metrics, METRICS)}


def make(room: str, name: str, **numbers: Any) -> Any:
    """Call a factory as its row says."""
    module, rows = ROOMS[room]
    return getattr(module, name)(**rows[name].static, **numbers)


def draw_world(factory: worlds.WorldFactory, seed: int = 0) -> Any:
    """Draw a world in one program; op by op, each would be compiled."""
    return jax.jit(factory)(jax.random.key(seed))


def nature() -> Any:
    """The world of all members but worlds: three environments, two inputs."""
    return worlds.contradiction(biases=jnp.asarray(BIASES))


def nature_of(measurement: str) -> Any:
    """A world that a measurement takes, with the sizes of `nature`."""
    if measurement in ("quadrature", "batch_projections"):
        return worlds.gaussian_environments(dim_causal=1, dim_spurious=1)
    if measurement == "counts":
        return worlds.two_bit(spurious_flips=(0.2, 0.25, 0.1))
    return nature()


def nature_with_tests() -> Any:
    """The same world with its environments as test environments, too."""

    def world(key: jax.Array) -> Any:
        drawn = nature()(key)
        return drawn._replace(test_mixing=drawn.mixing, test_means=drawn.means)

    return world
