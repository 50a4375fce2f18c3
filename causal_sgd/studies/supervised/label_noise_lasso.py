"""Label noise turns weights u^2 into a Lasso, and so do environments that share one design.

A regression of weights u^2 on d = 100 inputs, five of which have weight one, from n = 40 examples
(HaoChen, Wei, Lee and Ma 2021: loss r^2 / 4, start u = 1). Gradient descent stays in the kernel
regime: it ends at the interpolator of least entropy, 8 away from w*. Langevin noise does not move
it, hot Langevin noise makes it worse, and the noise of batches vanishes with the residuals, a tenth
of the way. A step u_i <- u_i (1 - eta g_i) has the log-drift -eta E g_i - (eta^2 / 2) E g_i^2,
which is zero on the support and negative elsewhere if theta = u^2 solves

    min over theta >= 0 of theta'S theta / 2 - b'theta + (eta / 2) sum_i V_i theta_i,

V_i the variance of g_i and b = S w* here (derived anew; for label noise Pillaud-Vivien, Reygner and
Flammarion 2022). Fresh noise delta on one label gives V_i = delta^2 S_ii. New is that environments
w* + M e_j and w* - M e_j on one design give V_i = M^2 S_ij^2, as noise of labels along X e_j does.
So HeteroSGD leaves the kernel regime without any label noise, for a limit that is known beforehand.
A single input j penalises unevenly, and weight hides where S_ij is small; 32 inputs penalise evenly
and recover w*. The penalties of label noise and of environments add up.

How many examples suffice: without noise w* is found where it is the only vector of weights >= 0
that fits, beyond about (d + 5) / 2. With label noise the threshold is the statistical dimension of
l1 minimisation, of the order of 5 log d. Li, Wang and Arora (2021) prove such orders for large
starts; the constants are ours. Close to a threshold runs are slow, so that finite ones recover w*
from slightly more examples; the length of the runs and what counts as recovered were set in pilots.

A product U U' with label noise finds the least trace (Blanc et al. 2020; Damian, Ma and Lee 2021),
more precisely the minimiser of 2 L + (eta / 2) delta^2 <K, A>, where K is the mean of X_i^2 and
2 <K, U U'> the trace of the Hessian. This holds for d = 10 at n = 28. (From n = 32.5 on, the
statistical dimension of the cone, A* is the only positive matrix that fits, and gradient descent
finds it, too.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._tables import points
from causal_sgd.studies._thresholds import half
from causal_sgd.studies.supervised import _label_noise as methods
from causal_sgd.studies.supervised import _label_noise_matrices as matrices
from causal_sgd.studies.supervised import _label_noise_panels as panels
from causal_sgd.studies.supervised._label_noise import METHODS, SUPPORT

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

STEPS, SEEDS = 12_000, 4
# Numbers of inputs, and shares of the predicted thresholds at which there are runs.
DIMS = {"noisy": (25, 100), "bare": (25, 50)}
SHARES = {"noisy": (0.7, 0.85, 1.0, 1.15, 1.3, 1.6), "bare": (0.9, 1.05, 1.2, 1.3, 1.45)}
LONG, RUNS = 14_000, 8
RECOVERED = 0.4  # |theta - w*| / |w*| of success
LASSO = "weighted Lasso with penalties (eta / 2) V_i, to first order in eta"
CONE = "statistical dimension, within its root: the width of the transition"
CLAIMS = {
    "flow": Claim(
        "gradient descent: distance from the interpolator of least entropy, over that from w*",
        0,
        0.05,
        "gradient flow: log theta is a combination of inputs",
    ),
    "langevin": Claim(
        "Langevin noise: distance from w* over that of gradient descent",
        0.9,
        1.1,
        "HaoChen et al. 2021; it diffuses by (2 eta T t)^(1/2) = 0.03 where the data say nothing",
    ),
    "hot": Claim("Langevin noise, 1000 times hotter: the same", 0.9, np.inf, "HaoChen et al. 2021"),
    "label_noise": Claim(
        "label noise: distance of the time average from the Lasso, over that of gradient descent",
        0,
        0.05,
        LASSO,
    ),
    "one_input": Claim("HeteroSGD, one input at M = 18: the same", 0, 0.05, LASSO),
    "many_inputs": Claim("HeteroSGD, 32 inputs at M = 9: the same", 0, 0.05, LASSO),
    "both": Claim("label noise and 32 inputs: the same", 0, 0.05, "variances of V_i add"),
    "recovers": Claim(
        "label noise: |theta - w*|^2 of the time average, median",
        0,
        0.01,
        "HaoChen et al. 2021: w* is recovered; the Lasso's own error is 0.001",
    ),
    "leaves": Claim(
        "HeteroSGD, one input: distance from w* over that of gradient descent",
        0,
        0.5,
        "the Lasso's own distances, 1 to 3 of 8.6",
    ),
    **{
        f"threshold_{dim}": Claim(
            f"label noise, {dim} inputs: examples at which half of the runs recover w*, over the "
            "statistical dimension of l1",
            0.8,
            1.25,
            CONE,
        )
        for dim in DIMS["noisy"]
    },
    **{
        f"bare_{dim}": Claim(
            f"no noise, {dim} inputs: the same, over (d + 5) / 2",
            0.8,
            1.25,
            CONE + "; the cone of all weights >= 0",
        )
        for dim in DIMS["bare"]
    },
    "log_growth": Claim(
        "label noise: growth of this number from 25 to 100 inputs, over that of the statistical "
        "dimension (6.5, of the order of 5 log 4)",
        0.6,
        1.6,
        "Li, Wang and Arora 2022, with the constant; two standard errors of 8 runs",
    ),
    "trace": Claim(
        "U U' with label noise: trace of the time average, median; A* has 1",
        0.85,
        1.1,
        "least trace, less the bias of the penalty",
    ),
    "matrix": Claim(
        "the same: distance from the minimiser of 2 L + (eta / 2) delta^2 <K, A>, over that of "
        "gradient descent",
        0,
        0.05,
        "trace of the Hessian (Blanc et al. 2020; Damian et al. 2021)",
    ),
    "batches": Claim.finding("batches of 10: distance from w* over that of gradient descent"),
    "many_recover": Claim.finding("HeteroSGD, 32 inputs: |theta - w*|^2, median"),
    "bare_trace": Claim.finding("U U' without noise: trace, median"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Eight methods on the same designs (12,000 steps at learning rates of 0.05 and then 0.02, 4
    seeds) and their predicted limits; 25 to 100 inputs and several numbers of examples with label
    noise and without (14,000 steps, 8 seeds); U U' of size 10 with label noise and without (12,000
    steps, 4 seeds). A seventh of the steps and 2 seeds when quick.
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    factor, seeds = (7, 2) if quick else (1, SEEDS)
    numbers = {"method": np.arange(len(METHODS))}
    compared = {"axes": numbers, "seeds": seeds, "tile": len(METHODS), **options}
    data = {
        "methods": sweep(methods.compared_cell(STEPS // factor), label="methods", **compared),
        "limits": sweep(methods.predicted_cell(), label="limits", **compared),
    }
    dims, counts, noisy = (np.concatenate(each) for each in zip(*map(_points, DIMS), strict=True))
    data["recovery"] = sweep(
        methods.recovery_cell(LONG // factor),
        axes={"point": zipped(dim=dims, num_examples=counts, label=noisy)},
        seeds=2 if quick else RUNS,
        tile=len(counts) // 2,
        label="recovery",
        **options,
    )
    data["matrices"] = sweep(
        matrices.matrix_cell(STEPS // factor),
        axes={"label": [0.0, 1.0]},
        seeds=seeds,
        tile=2,
        label="matrices",
        **options,
    )
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Distances from w* and from the predicted limits, thresholds, and traces."""
    distances = _distances(data)
    start = distances["gradient descent"]

    def over_descent(method: str, what: str) -> float:
        # Of the same seeds: the limits differ between methods, not the run without noise.
        apart = start["error"] if what == "error" else distances[method]["apart"]
        return float(np.median(distances[method][what] / apart))

    halves = {name: {dim: _half(data, name, dim) for dim in dims} for name, dims in DIMS.items()}
    cones = {dim: methods.dimension(dim) for dim in DIMS["noisy"]}
    (few, many), (low, high) = halves["noisy"].values(), cones.values()
    traces, away = _matrices(data["matrices"])
    return {
        "flow": float(np.median(start["flow"] / start["error"])),
        "langevin": over_descent("Langevin", "error"),
        "hot": over_descent("hot Langevin", "error"),
        "label_noise": over_descent("label noise", "lasso"),
        "one_input": over_descent("HeteroSGD, 1 input", "lasso"),
        "many_inputs": over_descent("HeteroSGD, 32 inputs", "lasso"),
        "both": over_descent("label noise and 32 inputs", "lasso"),
        "recovers": float(np.median(distances["label noise"]["error"]) ** 2),
        "leaves": over_descent("HeteroSGD, 1 input", "error"),
        **{f"threshold_{dim}": found / cones[dim] for dim, found in halves["noisy"].items()},
        **{
            f"bare_{dim}": found / methods.dimension(dim, ordered=False)
            for dim, found in halves["bare"].items()
        },
        "log_growth": (many - few) / (high - low),
        "trace": float(np.median(traces[1])),
        "matrix": float(np.median(away[1] / away[0])),
        "batches": over_descent("batches of 10", "error"),
        "many_recover": float(np.median(distances["HeteroSGD, 32 inputs"]["error"]) ** 2),
        "bare_trace": float(np.median(traces[0])),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Medians of all methods, the shares of runs that recover w*, and traces of U U'."""
    found = _distances(data)
    columns = {
        "distance_from_target": "error",
        "distance_from_lasso": "lasso",
        "lasso_from_target": "predicted",
        "l1_norm": "norm",
    }
    medians = {
        name: np.array([np.median(each[what]) for each in found.values()])
        for name, what in columns.items()
    }
    tables = {"distances": points({"method": np.array([*found])}, medians)}
    for name in DIMS:
        dims, counts, _ = _points(name)
        shares = _recovered(data, name).mean(1)
        thresholds = [methods.dimension(dim, ordered=name == "noisy") for dim in dims]
        tables[name] = points(
            {"dim": dims, "num_examples": counts}, {"recovered": shares, "threshold": thresholds}
        )
    traces, away = _matrices(data["matrices"])
    labels = data["matrices"].label.values
    middle = {"trace": np.median(traces, 1), "distance_from_limit": np.median(away, 1)}
    tables["traces"] = points({"label": labels}, middle)
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Distances of all methods from w*, that of the predicted Lasso (crosses: medians); weights of
    one design by gradient descent, by HeteroSGD and by the Lasso of HeteroSGD; the share of runs
    that recover w* against n, with predicted thresholds (dotted); and eigenvalues of U U', with
    those of the predicted limit (medians: symbols).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(10, 6.8), layout="constrained")
    found, tables = _distances(data), table(data)
    panels.draw_methods(
        axes[0, 0], {name: (each["error"], each["predicted"]) for name, each in found.items()}
    )
    weights, index = data["methods"].weights, [*METHODS].index("HeteroSGD, 1 input")
    first = {"method": index, "step": -1, "seed": 0}
    panels.draw_weights(
        axes[0, 1],
        weights.isel(first | {"method": 0}).values,
        weights.isel(first).values,
        data["limits"].lasso.isel(first).values,
    )
    panels.draw_recovery(axes[1, 0], tables)
    final = data["matrices"].estimate.isel(step=-1).transpose("label", "seed", ...).values
    panels.draw_eigenvalues(axes[1, 1], final, _limits(data["matrices"]))
    return fig


def _points(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, examples and label noise, of the runs with it ("noisy") or without ("bare")."""
    dims, shares, noisy = DIMS[name], SHARES[name], name == "noisy"
    thresholds = [methods.dimension(dim, ordered=noisy) for dim in dims]
    counts = np.round(np.outer(thresholds, shares)).ravel().astype(int)
    return np.repeat(dims, len(shares)), counts, np.full(counts.shape, float(noisy))


def _distances(data: Mapping[str, xr.Dataset]) -> dict[str, dict[str, np.ndarray]]:
    """Distances [seeds] by method, from w*, from its Lasso and from the interpolator."""
    weights = data["methods"].weights.isel(step=-1).transpose("method", "seed", ...).values
    limits = data["limits"].isel(step=-1).transpose("method", "seed", ...)
    lasso, flow = limits.lasso.values, limits.flow.values
    target = np.where(np.arange(weights.shape[-1]) < SUPPORT, 1.0, 0.0)

    def norm(vectors: np.ndarray) -> np.ndarray:
        return np.linalg.norm(vectors, axis=-1)

    return {
        name: {
            "error": norm(weights[index] - target),
            "lasso": norm(weights[index] - lasso[index]),
            "apart": norm(weights[0] - lasso[index]),  # gradient descent from this Lasso
            "flow": norm(weights[index] - flow[index]),
            "predicted": norm(lasso[index] - target),
            "norm": weights[index].sum(-1),
        }
        for index, name in enumerate(METHODS)
    }


def _recovered(data: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """Which runs with noise or without recover w*, [points, seeds]; none that diverges."""
    errors = data["recovery"].error.isel(step=-1).transpose("point", "seed").values
    first = len(_points("noisy")[0])
    return (errors[:first] if name == "noisy" else errors[first:]) < RECOVERED


def _half(data: Mapping[str, xr.Dataset], name: str, dim: int) -> float:
    dims, counts, _ = _points(name)
    recovered = _recovered(data, name)[dims == dim]
    return half(counts[dims == dim].astype(float), recovered.mean(1), recovered.shape[1])


def _limits(dataset: xr.Dataset) -> np.ndarray:
    """The predicted limits with label noise, [seeds, d, d]."""
    from causal_sgd.sensing.measurements import designs

    final = dataset.isel(step=-1, label=-1).transpose("seed", ...)
    design = np.asarray(designs.unpack(final.design.values))
    return matrices.least_curvature(design, final.target.values, matrices.LAST / 2)


def _matrices(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Traces, and distances from the predicted limit with noise, [without and with it, seeds]."""
    found = dataset.estimate.isel(step=-1).transpose("label", "seed", ...).values
    away = np.linalg.norm(found - _limits(dataset)[None], axis=(-2, -1))
    return np.trace(found, axis1=-2, axis2=-1), away
