"""Valid values of the parameters of public functions and methods."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import causal_sgd as cs
from causal_sgd import supervised
from causal_sgd.experiment import Experiment, SupervisedExperiment
from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.sensing.worlds import World
from causal_sgd.supervised import estimators
from causal_sgd.sweeps import _machine, refinement
from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps.store import Manifest
from causal_sgd.theory.invariance import separable
from causal_sgd.training import algorithms, objectives, optimizers, samplers
from causal_sgd.types import Snapshot, Trace
from support.networks import apply_mlp, init_mlp, linen_module, make_equinox


class Later(NamedTuple):
    """A value that takes long to make, made when it is used."""

    make: Callable[[], object]


RANKS: dict[str, Any] = {"dim": 6, "invariant_rank": 2, "spurious_rank": 1}
FACTORY = worlds.two_point(**RANKS, spread=1.0, basis="canonical")
KEY = jax.random.key(0)
MODEL = models.factored(dim=6)
PARTS: dict[str, Any] = {
    "world": FACTORY,
    "sampler": samplers.hetero(batch_size=10),
    "measurement": measurements.population(),
    "model": MODEL,
    "optimizer": optax.sgd(0.1),
}
ALGORITHM = algorithms.sgd(**PARTS)
EXPERIMENT = Experiment(
    dim=3,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    model="diagonal",
    basis="canonical",
    steps=2,
    metrics=("spurious_signal",),
)
SEPARATOR = separable.Separator(jnp.ones(2), jnp.full(2, 0.5), jnp.zeros(2))
REGRESSION = SupervisedExperiment(steps=2, metrics=("spurious_weight",))
CHAIN = EXPERIMENT.replace(
    model="order-parameters", measurement="order-parameter-law", rank=1, dim=9
)
CELL = EXPERIMENT.cell()
AXES = {"spread": [1.0, 2.0]}


@functools.wraps(CELL)
def shapes_of_cell(key: Any, **numbers: Any) -> object:
    """The cell without a run, which would take seconds step by step."""
    return jax.eval_shape(lambda: CELL(key, **numbers))


RESULTS = xr.Dataset(
    {
        "spurious_signal": (("spread", "seed", "step"), np.ones((3, 4, 4))),
        "diverged_at": (("spread", "seed"), np.full((3, 4), -1)),
    },
    {"spread": [1.0, 2.0, 3.0], "seed": np.arange(4), "step": [0, 1, 2, 3]},
)
DIAGRAM = xr.concat([RESULTS, RESULTS], xr.Variable("learning_rate", [0.1, 0.2]))
GRID = Grid({"spread": {"spread": np.array([1.0, 2.0])}}, np.arange(2))
MANIFEST: dict[str, Any] = {
    "cell": CELL,
    "grid": GRID,
    "shapes": jax.eval_shape(CELL, KEY),
    "kinds": [np.dtype("float32")],
    "program": "x",
    "key": {"key": "0 0", "key_implementation": "threefry2x32"},
    "config": None,
}
ENVIRONMENT: dict[str, Any] = {**_machine.environment(jax.devices()[0]), "program": "x"}
REFINEMENT = refinement(AXES, level=0.5, coarse=2)
UNIT = {"spurious_signal": np.zeros((2, 2), np.float32), "diverged_at": np.zeros(2, np.int32)}


@functools.cache
def world() -> World:
    return FACTORY(KEY)


@functools.cache
def state() -> Any:
    return ALGORITHM.init(KEY)


@functools.cache
def snapshot() -> Snapshot:
    return ALGORITHM.snapshot(KEY, state())


@functools.cache
def layered_snapshot() -> Snapshot:
    """A snapshot of a model with two factors."""
    parts = PARTS | {"model": models.asymmetric(dim=RANKS["dim"])}
    algorithm = algorithms.sgd(**parts)
    return algorithm.snapshot(KEY, algorithm.init(KEY))


@functools.cache
def growing_snapshot() -> Snapshot:
    """A snapshot of squares of weights."""
    parts = PARTS | {
        "world": supervised.worlds.contradiction(),
        "measurement": supervised.measurements.moments(),
        "model": supervised.models.hadamard(dim=2),
    }
    algorithm = algorithms.sgd(**parts)
    return algorithm.snapshot(KEY, algorithm.init(KEY))


def labelled() -> cs.supervised.worlds.SupervisedWorld:
    return cs.supervised.worlds.contradiction()(KEY)


@functools.cache
def labelled_snapshot(kind: str) -> Snapshot:
    """A snapshot of the second system: of a "fit", "risk", "split" or of "error"s of a table."""
    parts: dict[str, Any] = {
        "sampler": samplers.stratified(batch_size=2),
        "model": supervised.models.gated(dim=2),
        "optimizer": optax.sgd(0.1),
    }
    options: dict[str, Any] = {"num_examples": 20, "num_validation": 10}
    algorithm = {
        "fit": lambda: algorithms.fitted(
            world=supervised.worlds.contradiction(),
            measurement=supervised.measurements.moments(**options),
            estimator=estimators.pooled(),
        ),
        "risk": lambda: algorithms.sgd(
            world=tested, measurement=supervised.measurements.moments(**options), **parts
        ),
        "split": lambda: algorithms.zin(
            world=supervised.worlds.contradiction(),
            measurement=supervised.measurements.examples(10),
            model=supervised.models.linear(dim=2),
            optimizer=optax.sgd(0.1),
        ),
        "error": lambda: algorithms.sgd(
            world=supervised.worlds.two_bit(),
            measurement=supervised.measurements.counts(**options),
            **parts,
        ),
    }[kind]()
    return jax.jit(lambda: algorithm.snapshot(KEY, algorithm.init(KEY)))()


def tested(key: jax.Array) -> Any:
    """A world with its environments as those of the test."""
    drawn: Any = supervised.worlds.contradiction()(key)
    return drawn._replace(test_mixing=drawn.mixing, test_means=drawn.means)


def _kind(metric: str) -> str:
    """The kind of snapshot that a metric of the second system takes."""
    of_signs = ("test_error", "test_errors", "worst_test_error", "training_error", "test_losses")
    if metric == "split":
        return metric
    if metric in (*of_signs, "validation_error", "margin") or "accura" in metric:
        return "error"
    fitted = ("support", "selected", "exact", "accepted", "interval")
    return "fit" if any(word in metric for word in fitted) else "risk"


AX = object()  # stands for the axes of a new figure
# Valid values of parameters by name; others keep their defaults.
VALID: dict[str, Any] = {
    "algorithm": ALGORITHM,
    "angle": 0.1,
    "ax": AX,
    "axes": AXES,
    "batch_ratio": 5.0,
    "batch_size": 10,
    "bias": 0.5,
    "causal": np.array([True, False]),
    "cell": CELL,
    "cells": {"one": CELL},
    "chosen": np.array([True, False]),
    "context_length": 20,
    "core": np.eye(1),
    "cores": np.eye(2),
    "counts": 100,
    "dataset": RESULTS,
    "datasets": {"one": DIAGRAM},
    "damping": 0.5,
    "temperature": 1e-4,
    "decay": 0.5,
    "depth": 3.0,
    "description": EXPERIMENT.describe(),
    "dim": 6,
    "directions": 2,
    "down": 3.0,
    "draw": lambda key: jnp.eye(2),
    "eigenvalue": 1.0,
    "eigenvalues": np.array([3.0, -2.0]),
    "environment": ENVIRONMENT,
    "environments_per_batch": 2,
    "exponent": lambda spreads: 1 - spreads,
    "factor": np.ones((6, 4)),
    "factors": np.array([1.2, 0.5]),
    "family": "two_point",
    "field": "spread",
    "files": {"world_file": "world.npz"},
    "frame": 1,
    "fresh": Later(world),
    "function": lambda snapshot: snapshot.step,
    "gamma": 1.0,
    "grid": GRID,
    "high": 2.0,
    "highest": 5.0,
    "imbalance": 0.5,
    "init_scale": 0.01,
    "input_variance": 2.0,
    "intervention": lambda x: (x + 1, x - 1),
    "invariant": np.diag([1.0, 0.0]),
    "invariant_flip": 0.1,
    "invariant_rank": 2,
    "key": KEY,
    "learning_rate": 0.1,
    "lengths": [10, 20, 30],
    "length": 2,
    "level": 0.5,
    "local_steps": 2,
    "low": 0.5,
    "lower": 0.5,
    "lowest": -3.0,
    "manifest": Manifest.make(**MANIFEST),
    "matrices": np.eye(2)[None],
    "mean": 1.0,
    "measurement": measurements.population(),
    "metric": "spurious_signal",
    "metrics": [cs.sensing.metrics.spurious_signal],
    "model": MODEL,
    "momentum": 0.5,
    "name": "spurious_signal",
    "number": "spread",
    "noise_variance": 1.0,
    "num_chains": 2,
    "num_environments": 2,
    "num_examples": 10,
    "num_steps": 2,
    "optimizer": optax.sgd(0.1),
    "out": "results.csv",
    "outlier": -5.0,
    "params": Later(lambda: state().params),
    "path": "own.zarr",
    "points": 3,
    "probabilities": np.array([0.5, 0.5]),
    "probability": 0.5,
    "product": 0.3,
    "progress": False,
    "proximal": 0.1,
    "quantile": lambda u: u - 0.5,
    "radius": 0.1,
    "curvature": 2.0,
    "gradient_norm": 0.1,
    "rank": 3,
    "rate": 0.1,
    "rounds": 1,
    "rows": 3,
    "sampler": PARTS["sampler"],
    "second": np.stack([np.eye(4)] * 2),
    "share": 0.5,
    "signal": np.ones(5),
    "snapshot": Later(snapshot),
    "spare": np.array([0.5, 0.6]),
    "spread": 4.0,
    "spurious": np.diag([0.0, 1.0])[None],
    "spurious_flip": 0.2,
    "spurious_flips": [0.2, 0.25],
    "spurious_rank": 1,
    "start": 1,
    "signals": np.ones((3, 5)),
    "spectrum": np.ones(2),
    "state": cs.theory.OrderParameters(jnp.ones((5, 2)), jnp.eye(2)),
    "stay": 0.5,
    "steps": np.array([0, 2]),
    "target": np.array([1.0, 0.0]),
    "tile": 2,
    "trace": Trace(jnp.array([0, 2]), {"spurious_signal": jnp.ones(2)}, jnp.array(-1)),
    "unit": 0,
    "units": np.array([0]),
    "up": 5.0,
    "values": np.ones(5),
    "weight": 2.0,
    "world": FACTORY,
    "x": "spread",
}
# Where a name means something else, or a default is not the valid value to test with.
OWN: dict[str, dict[str, Any]] = {
    "Experiment": {name: getattr(EXPERIMENT, name) for name in EXPERIMENT.describe()},
    "SupervisedExperiment": {
        name: getattr(REGRESSION, name) for name in REGRESSION.describe() if name != "system"
    },
    "Manifest.make": MANIFEST,
    # Programs of other versions are not compared.
    "Store.check": {"environment": ENVIRONMENT | {"versions": {"causal_sgd": "0", "jax": "0"}}},
    "Store.create": {"path": "other.zarr"},
    "SupervisedExperiment.parse": {"description": REGRESSION.describe()},
    "andmask": {"threshold": 0.5},
    "batch_projections": {"max_examples": 5},
    "annealed": {"objective": objectives.irmv1, "before": 1.0, "after": 2.0},
    "birm": {"deviation": 0.1},
    "from_value": {"value": lambda examples, params: 1.0},
    "linear_network": {"hidden": 3, "depth": 3},
    "hadamard": {"depth": 3},
    "input_gates": {"network": supervised.models.linear(dim=2), "groups": 2, "start": 0.7},
    "from_equinox": {"make": make_equinox, "example": np.ones(2)},
    "from_flax": {"module": Later(linen_module), "example": np.ones(2)},
    "supervised.models.network": {"init": init_mlp, "apply": apply_mlp},
    "relative_cap": {"cap": 0.5},
    "training.optimizers.gates": {"cap": 0.5},
    "training.algorithms.fair": {
        "world": supervised.worlds.contradiction(),
        "measurement": supervised.measurements.moments(),
        "model": supervised.models.gated(dim=2),
    },
    "training.algorithms.zin": {
        "world": supervised.worlds.contradiction(),
        "measurement": supervised.measurements.examples(10),
        "model": supervised.models.linear(dim=2),
    },
    "on_tests": {"factory": supervised.worlds.two_bit()},
    "penalised": {"objective": objectives.mean()},
    "restarted": {"at": 1},
    "sandmask": {"threshold": 0.5, "sharpness": 1.0},
    "accepted_sets": {
        "data": Later(lambda: cs.supervised.measurements.moments(100).init(KEY, labelled())),
        "level": 0.05,
        "world": Later(labelled),
    },
    "anchor": {"strength": 4.0},
    "ask": {"state": REFINEMENT},
    "deep": {"depth": 3},
    "environment_risk": {"environment": 0},
    "excess_risk": {"invariant": 1.0, "spurious": 0.1},
    "fitted": {"estimator": estimators.pooled()},
    "sensing.measurements.fixed_design": {"num_examples": 10},
    "imbalance": {"snapshot": Later(layered_snapshot)},
    "layer_alignment": {"snapshot": Later(layered_snapshot)},
    "from_file": {"path": "world.npz"},
    "laminar_phases": {"signal": np.ones(5)},
    "averaged": {
        "params": jnp.ones((6, 6)),
        "state": optimizers.moving_average(decay=0.5).init(jnp.ones((6, 6))),
    },
    "nan_quantiles": {"probabilities": np.array([0.5])},
    "phase_diagram": {"dataset": DIAGRAM, "y": "learning_rate"},
    "rejection_boundary": {"along": "spread"},
    "final_value": {"along": "spread"},
    "level_crossing": {"along": "spread"},
    "refine": {"coarse": 2, "first_seeds": 1, "max_seeds": 1, "label": "x", "store": None},
    "sensing.models.order_parameters": {"rank": 1},
    "supervised.worlds.from_arrays": {
        "x": np.arange(12.0).reshape(6, 2),
        "y": np.arange(6.0),
        "environment": np.array([0, 1] * 3),
    },
    "supervised.worlds.coloured_digits": {"images": (np.eye(4), np.arange(4))},
    "supervised.worlds.recoloured": {"inputs": np.eye(4), "sign": 1.0},
    "supervised.worlds.fixed_design": {"weights": np.eye(2), "num_examples": 3},
    "supervised.worlds.from_draws": {
        "draw": lambda key, environment, n: (jnp.ones((n, 2)), jnp.ones(n))
    },
    "supervised.worlds.regression": {"weights": np.eye(2)},
    "supervised.worlds.single_index": {"weights": np.eye(2)},
    "supervised.worlds.separable": {"points": np.ones((1, 2, 2))},
    "supervised.worlds.from_equations": {"weights": np.array([[0.0, 1.0], [0.0, 0.0]])},
    "unit_test_regression": {"num_environments": 2},
    "slurm": {"executor": types.SimpleNamespace(submit=print)},
    "stream": {"name": "world"},
    "order_parameter_boundary": {"metric": "spurious_signal"},
    "theory.attention.growth": {"relation": np.ones(2), "learned": np.zeros(2)},
    "theory.attention.optimum": {"relation": np.eye(2)},
    "theory.critical_learning_rate_environments": {"deviations": np.array([1.0, -1.0])},
    "theory.critical_spread_environments": {"deviations": np.array([1.0, -1.0])},
    "theory.invariance.environments_needed.bayes_risk": {"signal_to_noise": 1.0},
    "theory.invariance.environments_needed.certificate": {"spurious_means": np.eye(2)},
    "theory.invariance.environments_needed.flipped_error": {"signal_to_noise": 1.0, "gain": 1.0},
    "theory.invariance.environments_needed.gain_distribution": {"gain": 1.0, "dim_spurious": 3},
    "theory.invariance.environments_needed.logistic_risk": {"deviation": 1.0},
    "theory.invariance.environments_needed.scale_slope": {"deviation": 1.0},
    "theory.invariance.minority_groups.asymptotic_errors": {"time": 10.0, "minority_share": 0.1},
    "theory.invariance.minority_groups.descend": {"num_steps": 2, "minority_share": 0.1},
    "theory.invariance.minority_groups.errors": {"weights": np.ones(3)},
    "theory.invariance.minority_groups.step": {"weights": np.ones(3), "minority_share": 0.1},
    "theory.invariance.mixtures.bayes_error": {"signal_to_noise": 1.0},
    "theory.invariance.mixtures.error_rates": {
        "weights": np.ones(2),
        "shares": np.ones((1, 1)),
        "means": np.ones((1, 1, 2)),
        "root": np.eye(2),
        "labels": np.ones(1),
    },
    "theory.invariance.mixtures.permuted_error": {"agreement": 0.9, "foreground": 0.5},
    "theory.invariance.separable.direction_gap": {"found": SEPARATOR},
    "theory.invariance.separable.fixed_length_gap": {"found": SEPARATOR, "length": 0.1},
    "theory.invariance.separable.scaled_loss": {"found": SEPARATOR},
    "theory.invariance.separable.separator": {"points": np.eye(2), "shares": np.full(2, 0.5)},
    "theory.invariance.two_bit.risk": {"weights": np.array([0.8, 0.0])},
    "theory.limits.order_parameters": {"world": Later(world)},
    "theory.linear_dynamics.accuracy": {"loss": 0.1, "tolerance": 0.05},
    "theory.linear_dynamics.grokking_times": {"ratio": 0.5},
    "theory.linear_dynamics.late_gap": {"ratio": 0.5},
    "theory.linear_dynamics.loss_at": {"accuracy": 0.9, "tolerance": 0.05},
    "theory.linear_dynamics.losses": {"step": 10, "ratio": 0.5},
    "theory.linear_dynamics.spectrum": {"ratio": 0.5},
    "theory.linear_dynamics.vanishing_spread": {"ratio": 0.5, "sampler": "hetero"},
    "theory.order_parameters": {"world": Later(world)},
    "theory.sparse.effective_scale": {"positive": 0.1, "negative": 0.1},
    "theory.sparse.feature_thresholds": {"correlation": 0.5},
    "theory.sparse.first_gain": {"target": np.ones(3)},
    "theory.sparse.gradient_variances": {
        "estimate": np.ones(2),
        "second": np.eye(2),
        "cross": np.eye(3, 2),
    },
    "theory.sparse.growth_exponents": {
        "estimate": np.ones(2),
        "second": np.eye(2),
        "cross": np.eye(3, 2),
    },
    "theory.sparse.heterogeneity_lasso": {"second": np.eye(2), "cross": np.eye(3, 2)},
    "theory.sparse.hyperbolic_interpolator": {
        "inputs": np.eye(2, 3),
        "labels": np.ones(2),
        "scale": 0.1,
    },
    "theory.sparse.l1_interpolator": {"inputs": np.eye(2, 3), "labels": np.ones(2)},
    "theory.sparse.sparse_dimension": {"dim": 10, "support": 2},
    "theory.sparse.weighted_lasso": {
        "second": np.eye(2),
        "cross": np.ones(2),
        "weights": np.full(2, 0.1),
    },
    "theory.single_index.learning_time": {"signals": 0.5, "share": 0.5},
    "theory.single_index.link_moments": {"link": jnp.sin},
    "theory.single_index.noise_level": {"num_noise": 10.0},
    "theory.single_index.rejecting_learning_rate": {"low": -0.5},
    "theory.single_index.stopped_weights": {"signals": 0.5},
    "theory.single_index.stopped_error": {
        "signals": np.ones(2),
        "variances": np.ones(2),
        "num_noise": 10.0,
    },
    "theory.stability.almost_sure_cap": {"invariant_eigenvalue": 1.0, "mean": 0.2},
    "theory.stability.catapult_step": {"output": 0.1, "sharpness": 1.0, "eigenvalues": 0.0},
    "theory.stability.flattening_time": {
        "start": 1.6,
        "end": 1.2,
        "target": 0.5,
        "ratio": 0.1,
    },
    "theory.stability.sharpening_end": {"target": 0.5, "ratio": 0.1},
    "theory.stability.heterogeneity_cap": {"invariant_eigenvalue": 1.0, "mean": 0.2},
    "theory.stability.oscillation_end": {"learning_rate": 1.2, "strong": 1.0, "weak": 0.2},
    "theory.stability.share_time": {
        "share": 0.5,
        "start_share": 0.9,
        "strong": 1.0,
        "weak": 0.2,
    },
    "theory.stability.weak_exponent": {"strong": 1.0, "weak": 0.2},
    "theory.stability.saddle_spectrum": {
        "invariant_eigenvalues": np.ones(2),
        "spurious_eigenvalues": np.ones(1),
        "dim": 4,
        "rank": 3,
    },
    "experiment.diagnosis.diagnose": {
        "world": supervised.worlds.contradiction(),
        "measurement": supervised.measurements.moments(),
        "model": supervised.models.hadamard(dim=2),
        "params": {"positive": np.ones(2, np.float32)},
        "subspace": "positive",
        "num_steps": 10,
        "burn_in": 0,
    },
    "experiment.diagnosis.growth": {
        "snapshot": Later(growing_snapshot),
        "subspace": "positive",
        "num_steps": 10,
        "burn_in": 0,
    },
    "experiment.diagnosis.exponents": {
        "snapshot": Later(growing_snapshot),
        "subspace": "positive",
        "num_steps": 10,
        "burn_in": 0,
    },
    "experiment.diagnosis.disturbances": {
        "snapshot": Later(growing_snapshot),
        "subspace": "positive",
    },
    "experiment.diagnosis.report": {"data": supervised.worlds.contradiction()},
    "trajectories": {"over": "spread"},
    "tell": {"state": REFINEMENT, "dataset": RESULTS.isel(spread=[0, 1])},
    "use_compilation_cache": {"folder": "cache"},
    "use_cpu_cores": {"count": 1},
    "write": {"values": UNIT},
    "write_page": {"path": "page.html"},
    "without": {"inputs": [1]},
    "zipped": {"nonsense": [1.0]},
} | {
    f"supervised.metrics.{name}": {
        "snapshot": Later(functools.partial(labelled_snapshot, _kind(name)))
    }
    for name in supervised.metrics.__all__
}
