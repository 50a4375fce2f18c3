"""Small cells that together use every choice of an experiment.

python small_cells.py    prints their final metrics as JSON, in the precision of the environment
"""

from __future__ import annotations

import json

from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep

SMALL = Experiment(
    dim=4,
    invariant_rank=1,
    spurious_rank=2,
    mean=0.3,
    spread=0.7,
    batch_size=6,
    num_examples=9,
    init_scale=0.3,
    learning_rate=0.07,
    local_steps=2,
    steps=4,
    metrics=("invariant_error", "spurious_signal", "batch_loss"),
)
LOSSES = ("environment_losses", "training_loss", "gradient_norm")
CURVATURES = (
    "sharpness",
    "lowest_curvature",
    "environment_sharpness",
    "batch_sharpness",
    "hessian_trace",
)
SIZES = ("pooled_error", "relative_invariant_error", "relative_pooled_error", "invariant_signal")
SPECTRA = ("effective_rank", "singular_values", "largest_principal_angle", "spurious_power")
PREDICTIONS = ("invariant_prediction_error", "spurious_prediction", "complement_prediction")
MANY = {"num_environments": 4}
CELLS: dict[str, dict[str, object]] = {
    "law": {"metrics": (*SMALL.metrics, *SIZES, *SPECTRA, "complement_signal")},
    "low rank": {
        "measurement": "low-rank-law",
        "sampler": "pooled",
        "family": "uniform",
        "optimizer": "momentum",
        "schedule": "linear",
        **MANY,
    },
    "population": {
        "measurement": "population",
        "model": "diagonal",
        "basis": "canonical",
        "sampler": "cyclic",
        "optimizer": "nesterov",
        "schedule": "cosine",
        "metrics": ("worst_environment_loss", *LOSSES, *CURVATURES),
    },
    "streamed": {
        "measurement": "streamed",
        "sampler": "shuffled",
        "family": "gaussian",
        "evolution": "redraw",
        "optimizer": "sgdw",
        "schedule": "warm-up",
        "sam_radius": 0.1,
        **MANY,
    },
    "fixed": {
        "measurement": "fixed-design",
        "sampler": "block",
        "family": "log-normal",
        "rotation": 0.3,
        "optimizer": "adam",
        "average": "moving",
        **MANY,
    },
    "rank one": {
        "measurement": "rank-one",
        "model": "quadratic",
        "sampler": "sticky",
        "family": "goe",
        "evolution": "drift",
        "mean_drift": 0.1,
        "optimizer": "adamw",
        "average": "tail",
        "metrics": (*SMALL.metrics, *PREDICTIONS),
        **MANY,
    },
    "completion": {
        "measurement": "completion",
        "model": "asymmetric",
        "sampler": "mixed",
        "family": "discrete",
        "eigenvalues": (0.3, 0.9, -0.4),
        "evolution": "rotate",
        "accumulate": 2,
        "clip_norm": 0.1,
    },
    "examples": {
        "measurement": "examples",
        "model": "relu",
        "trained_layers": "first",
        "sampler": "stratified",
        "label_noise": 0.3,
        "tilt": 0.2,
    },
    "prompts": {
        "measurement": "in-context",
        "model": "asymmetric",
        "context_length": 5,
        "input_variances": (2.0, 1.0, 0.5, 0.2),
        "label_noise": 0.3,
    },
    "mean of prompts": {
        "measurement": "in-context-population",
        "model": "deep",
        "task_variances": (2.0, 1.0, 0.5, 0.2),
    },
    "chain": {
        "model": "order-parameters",
        "measurement": "order-parameter-law",
        "dim": 30,
        "rank": 2,
        "optimizer": "momentum",
    },
    "limit": {
        "model": "order-parameters",
        "measurement": "order-parameter-limit",
        "dim": 30,
        "rank": 2,
        "batch_ratio": 0.7,
    },
    "noise": {"optimizer": "noisy-sgd"},
    "langevin": {"optimizer": "langevin", "measurement": "population", "temperature": 1e-3},
    "preconditioned": {
        "model": "asymmetric",
        "measurement": "population",
        "optimizer": "scaled",
        "init": "gaussian",  # others begin with balanced factors
        "init_scale": 0.1,
        "metrics": ("trace", "imbalance", "layer_alignment"),
    },
    "clients": {"model": "deep", "algorithm": "fedavg", "optimizer": "lion", "init": "identity"},
    "proximal": {
        "measurement": "streamed",
        "model": "signed-diagonal",
        "basis": "canonical",
        "algorithm": "fedprox",
        "client_weights": "probabilities",
        "optimizer": "sign",
    },
    "variates": {"model": "deep", "algorithm": "scaffold", "init": "gaussian"},
}


def finals() -> dict[str, dict[str, list[float]]]:
    """The final metrics of all cells, for two seeds."""
    results = {}
    for name, fields in CELLS.items():
        dataset = sweep(SMALL.replace(**fields).cell(), seeds=2).isel(step=-1)
        results[name] = {
            f"{metric} {values.dtype}": values.values.ravel().tolist()
            for metric, values in dataset.data_vars.items()
            if metric != "diverged_at"
        }
    return results


if __name__ == "__main__":
    print(json.dumps(finals()))
