"""The contract rows: for each name in the `__all__` of a room, its arguments. One row per member.

A member without a row fails `test_contracts.py::test_every_member_has_a_row`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.sensing import World, measurements, metrics, models, nonstationary, worlds
from causal_sgd.training import algorithms, curvature, objectives, optimizers, samplers
from causal_sgd.types import Sampler
from support.arrays import symmetric

DIM, SHARED_RANK, OWN_RANK = 7, 2, 2
RANKS: dict[str, Any] = {"dim": DIM, "invariant_rank": SHARED_RANK, "spurious_rank": OWN_RANK}
PROBABILITIES = np.array([0.5, 0.3, 0.15, 0.05, 0.0])


class Row(NamedTuple):
    """Static arguments, two sets of numbers that may be traced, and whether the key matters."""

    static: Mapping[str, Any] = MappingProxyType({})
    numbers: Mapping[str, Any] = MappingProxyType({})
    others: Mapping[str, Any] = MappingProxyType({})
    random: bool = True


def own_signals(seed: int = 0, *, dim: int = DIM, environments: int = 3) -> dict[str, np.ndarray]:
    """An indefinite A* and spurious signals of rank 3 that share a direction with it."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.normal(size=(dim, 4)))[0]
    own = frame[:, 1:]
    return {
        "invariant": frame[:, :2] * np.array([2.0, -1.0]) @ frame[:, :2].T,
        "spurious": own @ symmetric(rng, environments, 3, 3) @ own.T,
    }


WORLDS = {
    "two_point": Row(
        RANKS,
        {
            "mean": 1.0,
            "spread": 6.0,
            "tilt": 0.0,
            "invariant_spectrum": np.array([1.0, 2.0], np.float32),
        },
        {
            "mean": 0.5,
            "spread": 3.0,
            "tilt": 0.2,
            "invariant_spectrum": np.array([3.0, 2.0], np.float32),
        },
    ),
    "uniform": Row(
        RANKS | {"num_environments": 5}, {"mean": 1.0, "spread": 6.0}, {"mean": 2.0, "spread": 1.0}
    ),
    "gaussian": Row(
        RANKS | {"num_environments": 5},
        {"spread": 6.0, "probabilities": PROBABILITIES.astype(np.float32)},
        {"spread": 2.0, "probabilities": np.full(5, 0.2, np.float32)},
    ),
    "from_quantile": Row(
        RANKS | {"num_environments": 5, "quantile": lambda u: jnp.log(u / (1 - u))},
        {"mean": 1.0, "spread": 6.0},
        {"mean": 2.0, "spread": 1.0},
    ),
    "log_normal": Row(
        RANKS | {"num_environments": 5},
        {"mean": np.array([1.0, 2.0], np.float32), "spread": 3.0, "rotation": 0.5},
        {"mean": np.array([2.0, 0.5], np.float32), "spread": 1.0, "rotation": 1.0},
    ),
    "goe": Row(
        RANKS | {"num_environments": 5},
        {"mean": 1.0, "spread": 6.0, "coupling": 1.0},
        {"mean": 2.0, "spread": 1.0, "coupling": 0.3},
    ),
    "discrete": Row(
        RANKS,
        {
            "eigenvalues": np.arange(5, dtype=np.float32),
            "probabilities": PROBABILITIES.astype(np.float32),
        },
        {
            "eigenvalues": -np.arange(5, dtype=np.float32),
            "probabilities": np.full(5, 0.2, np.float32),
        },
    ),
    "from_arrays": Row(
        own_signals(),
        {"probabilities": np.array([0.2, 0.3, 0.5], np.float32)},
        {"probabilities": np.array([0.5, 0.3, 0.2], np.float32)},
        random=False,
    ),
    "from_file": Row({"path": "world.npz"}, random=False),
    "reduced": Row({"world": worlds.gaussian(**RANKS, num_environments=5), "rows": DIM}),
}
NONSTATIONARY = {
    "redraw": Row(
        {"world": worlds.gaussian(**RANKS, num_environments=4)},
        {"probability": 1.0},
        {"probability": 0.0},
    ),
    "drift": Row({}, {"rate": 0.3}, {"rate": -0.2}, random=False),
    "rotate": Row({}, {"angle": 0.1}, {"angle": 0.2}),
}
SAMPLERS = {
    "hetero": Row({}, {"batch_size": 13}, {"batch_size": 7}),
    "cyclic": Row({}, {"batch_size": 13}, {"batch_size": 7}, random=False),
    "block": Row(
        {}, {"batch_size": 13, "length": 3}, {"batch_size": 13, "length": 2}, random=False
    ),
    "shuffled": Row({}, {"batch_size": 13}, {"batch_size": 7}),
    "sticky": Row({}, {"batch_size": 13, "stay": 0.5}, {"batch_size": 7, "stay": 0.1}),
    "mixed": Row({"environments_per_batch": 3}, {"batch_size": 13}, {"batch_size": 7}),
    "pooled": Row({}, {"batch_size": 13}, {"batch_size": 7}),
    "stratified": Row({}, {"batch_size": 13}, {"batch_size": 7}, random=False),
}
MEASUREMENTS = {
    "population": Row(random=False),
    "gaussian_law": Row({}, {"noise": 0.5}, {"noise": 0.0}),
    "low_rank_law": Row({}, {"noise": 0.5}, {"noise": 0.0}),
    "fixed_design": Row(
        {"num_examples": 9}, {"noise": 0.5, "fresh_noise": 0.0}, {"noise": 0.0, "fresh_noise": 0.4}
    ),
    "streamed": Row({"slab_size": 6}, {"noise": 0.5}, {"noise": 0.0}),
    "rank_one": Row({"slab_size": 5}, {"noise": 0.5}, {"noise": 0.0}),
    "completion": Row({"slab_size": 5}, {"noise": 0.5}, {"noise": 0.0}),
    "examples": Row({"slab_size": 5}, {"noise": 0.5}, {"noise": 0.0}),
    "in_context": Row(
        {"context_length": 4, "slab_size": 5},
        {"noise": 0.5, "covariance": 1.0},
        {"noise": 0.0, "covariance": 2.0},
    ),
    "in_context_population": Row(
        {"context_length": 4},
        {"noise": 0.5, "covariance": 1.0},
        {"noise": 0.0, "covariance": 2.0},
        random=False,
    ),
    "order_parameter_law": Row({}, {"noise": 0.5}, {"noise": 0.0}),
    "order_parameter_limit": Row(
        {}, {"batch_ratio": 2.0, "noise": 0.5}, {"batch_ratio": 5.0, "noise": 0.0}, random=False
    ),
}
MODELS = {
    "factored": Row({"dim": DIM, "rank": 3}, {"init_scale": 0.1}, {"init_scale": 0.2}),
    "order_parameters": Row(
        {"rank": 2, "frame": 3},
        {"dim": 100, "init_scale": 0.1},
        {"dim": 10**6, "init_scale": 0.2},
    ),
    "diagonal": Row({"dim": DIM}, {"init_scale": 0.1}, {"init_scale": 0.2}, random=False),
    "signed_diagonal": Row({"dim": DIM}, {"init_scale": 0.1}, {"init_scale": 0.2}, random=False),
    "asymmetric": Row({"dim": DIM, "rank": 3}, {"init_scale": 0.1}, {"init_scale": 0.2}),
    "deep": Row({"dim": DIM, "init": "gaussian"}, {"init_scale": 0.1}, {"init_scale": 0.2}),
    "quadratic": Row({"dim": DIM}, {"init_scale": 0.1}, {"init_scale": 0.2}),
    "relu": Row({"dim": DIM}, {"init_scale": 0.1}, {"init_scale": 0.2}),
}
ALGORITHMS = {
    "sgd": Row({}, {"learning_rate": 0.1}, {"learning_rate": 0.05}),
    "fedavg": Row(
        {}, {"learning_rate": 0.1, "local_steps": 2}, {"learning_rate": 0.1, "local_steps": 3}
    ),
    "fedprox": Row(
        {"local_steps": 2},
        {"proximal": 0.5, "learning_rate": 0.1},
        {"proximal": 2.0, "learning_rate": 0.1},
    ),
    "scaffold": Row({}, {"local_steps": 2}, {"local_steps": 3}),
    "penalised": Row(
        {"objective": objectives.mean()}, {"learning_rate": 0.1}, {"learning_rate": 0.05}
    ),
}
OTHERS = {"algorithms": {"stream", "fitted", "fair", "zin"}}
"""`stream` makes keys. The contract of `fitted` is that of estimators, `fair` needs gates, and
`zin` needs examples."""
OPTIMIZERS = {
    "sam": Row({}, {"radius": 0.1}, {"radius": 0.5}),
    "restarted": Row({}, {"at": 1}, {"at": 5}),
    "gates": Row(
        {"where": lambda params: True},
        {"cap": 0.5, "learning_rate": 0.5},
        {"cap": 0.01, "learning_rate": 0.5},
    ),
    "relative_cap": Row({}, {"cap": 0.01}, {"cap": 0.001}),
    "scaled": Row({}, {"damping": 0.5}, {"damping": 0.1}),
    "langevin": Row({}, {"temperature": 0.5}, {"temperature": 0.1}),
    "moving_average": Row({}, {"decay": 0.5}, {"decay": 0.9}),
    "tail_average": Row({}, {"start": 1}, {"start": 0}),
    "averaged": Row({}),
}
# The shape of each metric: E environments, k columns of the factor.
METRICS: dict[str, tuple[str, ...]] = {
    "batch_loss": (),
    "complement_prediction": (),
    "complement_signal": (),
    "effective_rank": (),
    "environment_losses": ("E",),
    "gradient_norm": (),
    "imbalance": (),
    "invariant_error": (),
    "invariant_prediction_error": (),
    "invariant_signal": (),
    "largest_principal_angle": (),
    "layer_alignment": (),
    "pooled_error": (),
    "relative_invariant_error": (),
    "relative_pooled_error": (),
    "singular_values": ("k",),
    "spurious_power": (),
    "spurious_prediction": (),
    "spurious_signal": (),
    "trace": (),
    "training_loss": (),
    "worst_environment_loss": (),
}
CURVATURE: dict[str, tuple[str, ...]] = {
    "batch_sharpness": (),
    "environment_sharpness": ("E",),
    "hessian_trace": (),
    "lowest_curvature": (),
    "sharpness": (),
}
METRIC_ROOMS = {"metrics": (metrics, METRICS), "curvature": (curvature, CURVATURE)}
ROOMS: dict[str, tuple[ModuleType, dict[str, Row]]] = {
    "worlds": (worlds, WORLDS),
    "nonstationary": (nonstationary, NONSTATIONARY),
    "samplers": (samplers, SAMPLERS),
    "measurements": (measurements, MEASUREMENTS),
    "models": (models, MODELS),
    "algorithms": (algorithms, ALGORITHMS),
    "optimizers": (optimizers, OPTIMIZERS),
}


def make(room: str, name: str, world_file: Path | None = None, **numbers: Any) -> Any:
    """Call a factory as its row says."""
    module, rows = ROOMS[room]
    static = dict(rows[name].static)
    if "path" in static:
        static["path"] = world_file
    return getattr(module, name)(**static, **numbers)


def draws(sampler: Sampler, key: jax.Array, probabilities: Any, steps: int) -> jax.Array:
    """The counts of one run, [steps, E]; keys as `sgd` makes them."""
    state = sampler.init(key, jnp.asarray(probabilities, jnp.float32))

    def one(state: Any, step: jax.Array) -> tuple[Any, jax.Array]:
        batch, state = sampler.draw(jax.random.fold_in(key, step), step, state)
        counts = jnp.zeros(len(probabilities), batch.counts.dtype)
        return state, counts.at[batch.environments].add(batch.counts)

    return jax.lax.scan(one, state, jnp.arange(steps))[1]


def draw_world(factory: worlds.WorldFactory, seed: int = 0) -> World:
    """Draw a world in one program; op by op, each would be compiled."""
    return jax.jit(factory)(jax.random.key(seed))
