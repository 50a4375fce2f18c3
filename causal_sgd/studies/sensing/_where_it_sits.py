"""Settings, cell and laws of the study `where-it-sits`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.types import Array, Key, Snapshot, Trace

__all__ = [
    "BEYOND",
    "EVERY",
    "LATE",
    "MEAN",
    "POOLED",
    "RATE",
    "RELEASED_UNTIL",
    "SIGMA",
    "SPREADS",
    "batch_curvatures",
    "cell",
    "critical",
    "end_spectra",
    "levels",
    "log_signal",
    "minimum",
    "pooled_loss",
    "saddle",
    "stationary",
]

DIM, RANK, RATE, MEAN = 6, 5, 0.1, 1.5
SIGMA = np.array([1.0, 0.5625])  # with exact square roots: the start at A* has no rounding
SPREADS = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 7.25, 8.0])
BEYOND = SPREADS[5:]  # M_c = 5.68
POOLED = 2**28  # environments drawn for one batch
ALPHA = 1e-3  # of a small start
RELEASE = 1e-6  # of the component towards V of a start at A*
STEPS, EVERY, LATE = 600, 10, 300
RELEASED_UNTIL = 150  # later the component towards V may be below the smallest square


def cell(key: Key, *, batch_size: Array, spread: Array, released: Array) -> Trace:
    """Population gradients of one spurious direction, each batch with m draws of an environment.

    The model hides its factor, so that risks are those of U U': a smaller program at this size.

    Args:
        key: of the run.
        batch_size: m []; 1 is HeteroSGD.
        spread: M [].
        released: [], above 0 for a start at A*, otherwise a small one.
    """
    import dataclasses

    import jax.numpy as jnp
    import optax

    from causal_sgd import curvature
    from causal_sgd.sensing import measurements, models
    from causal_sgd.sensing.worlds import World
    from causal_sgd.training import run, samplers, sgd

    eye, r1 = jnp.eye(DIM), len(SIGMA)
    cores = (MEAN + spread * jnp.array([1.0, -1.0])).reshape(2, 1, 1)
    world = World(eye[:, :r1], jnp.asarray(SIGMA), eye[:, r1 : r1 + 1], cores, jnp.full(2, 0.5))
    model = models.factored(dim=DIM, rank=RANK, init_scale=ALPHA)
    at_signal = jnp.asarray(_at_signal())

    def start(key: Key) -> Array:
        return jnp.where(released > 0, at_signal, model.init(key))

    algorithm = sgd(
        world=lambda key: world,
        sampler=samplers.pooled(batch_size=batch_size),
        measurement=measurements.population(),
        model=dataclasses.replace(model, init=start, factor=None),
        optimizer=optax.sgd(RATE),
    )
    return run(
        key,
        algorithm=algorithm,
        metrics={
            "sharpness": curvature.sharpness,
            "lowest_curvature": curvature.lowest_curvature,
            "environment_sharpness": curvature.environment_sharpness,
            "batch_sharpness": curvature.batch_sharpness,
            "factor": _factor,
        },
        num_steps=STEPS,
        record_every=EVERY,
    )


def _factor(snapshot: Snapshot) -> Array:
    """U [d, k]."""
    return snapshot.params


def _at_signal() -> np.ndarray:
    """A factor [d, k] of A* with a tiny spare column along V."""
    start = np.zeros((DIM, RANK), np.float32)
    r1 = len(SIGMA)
    start[range(r1), range(r1)] = SIGMA**0.5
    start[r1, r1] = RELEASE
    return start


def levels(dataset: xr.Dataset) -> xr.DataArray:
    """The squared length of every row of U, [..., direction]: those of U*, then that of V, u^2."""
    squares = (dataset.factor.astype(float) ** 2).sum("factor_1")
    return squares.rename(factor_0="direction")


def _factors(dataset: xr.Dataset) -> np.ndarray:
    """U as [seed, d, k], in double precision."""
    return dataset.factor.transpose("seed", "factor_0", "factor_1").values.astype(float)


def end_spectra(runs: xr.Dataset) -> np.ndarray:
    """Eigenvalues [seed, d k], ascending, of the pooled loss's Hessian by its formula, in NumPy.

    H D = R D + D U'U + U D'U with R = UU' - A* - mean A_e; the metrics differentiate instead.

    Args:
        runs: one frame of one point, [seed].
    """
    units = np.eye(DIM * RANK).reshape(-1, DIM, RANK)
    signal = np.diag(np.append(SIGMA, [MEAN, *np.zeros(DIM - len(SIGMA) - 1)]))
    spectra = []
    for factor in _factors(runs):
        residual, gram = factor @ factor.T - signal, factor.T @ factor
        turned = np.einsum("ab,ncb,cd->nad", factor, units, factor)
        images = residual @ units + units @ gram + turned
        spectra.append(np.linalg.eigvalsh(images.reshape(len(units), -1)))
    return np.array(spectra)


def pooled_loss(runs: xr.Dataset) -> np.ndarray:
    """|UU' - A* - mean A_e|_F^2/4, the pooled loss [seed] less its part that U cannot change."""
    signal = np.diag(np.append(SIGMA, [MEAN, *np.zeros(DIM - len(SIGMA) - 1)]))
    residuals = [factor @ factor.T - signal for factor in _factors(runs)]
    return np.sum(np.square(residuals), (1, 2)) / 4


def saddle(spurious: float) -> np.ndarray:
    """The predicted eigenvalues [d k] at A*, ascending, with an eigenvalue of S along V."""
    return _spectrum(SIGMA, np.array([spurious]))


def minimum() -> np.ndarray:
    """The predicted eigenvalues [d k] at the end of pooled training, ascending."""
    return _spectrum(np.append(SIGMA, MEAN), np.zeros(0))


def _spectrum(invariant: np.ndarray, spurious: np.ndarray) -> np.ndarray:
    from causal_sgd.theory import stability

    values, counts = stability.saddle_spectrum(invariant, spurious, dim=DIM, rank=RANK)
    return np.sort(np.repeat(np.asarray(values, float), np.asarray(counts, int)))


def critical() -> float:
    from causal_sgd import theory

    return float(theory.critical_spread(RATE, MEAN))


def log_signal(runs: xr.Dataset) -> xr.DataArray:
    """Log |V'U| of runs released at A*, while it is not yet rounding."""
    squares = levels(runs.sel(released=1, step=slice(None, RELEASED_UNTIL)))
    power = squares.isel(direction=len(SIGMA))
    return power.copy(data=np.log(power.values) / 2)


def batch_curvatures(hetero: xr.Dataset) -> xr.Dataset:
    """Batch sharpness where V makes the gradient: its mean [spread], less 3 u^2, and the error.

    Below M_c these are late frames of small starts, beyond it early ones of runs released at A*, in
    which u has not yet vanished in rounding. The environment of the next batch is independent of
    the frame, so that the error of the second mean over n frames is M/sqrt(n).
    """
    from causal_sgd.studies._tables import points

    power = 3 * levels(hetero).isel(direction=len(SIGMA))
    below, beyond = (
        {"released": 0, "step": slice(LATE, None)},
        {"released": 1, "step": slice(EVERY, RELEASED_UNTIL)},
    )
    means, rests, errors = [], [], []
    for spread in SPREADS:
        frames = {"spread": spread, **(below if spread < critical() else beyond)}
        sharpness, part = hetero.batch_sharpness.sel(frames), power.sel(frames)
        means.append(float(sharpness.mean()))
        rests.append(float((sharpness - part).mean()))
        errors.append(spread / sharpness.size**0.5)
    return points({"spread": SPREADS}, {"mean": means, "rest": rests, "error": errors})


def stationary(spreads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages [n] of 3 u^2 - mu and of min(u^2 - mu, 0) of the map of one direction, iterated.

    The batch sharpness and the lowest curvature where V alone moves.
    """
    rng = np.random.default_rng(0)
    u = np.full((len(spreads), 512), 0.5)
    batch, lowest = np.zeros((2, len(spreads)))
    steps, burn_in = 1500, 500
    for step in range(steps):
        s = MEAN + spreads[:, None] * rng.choice([-1.0, 1.0], u.shape)
        u = np.maximum(np.abs((1 + RATE * (s - u * u)) * u), 1e-150)
        if step >= burn_in:
            square = u * u
            batch += (3 * square - MEAN).mean(1)
            lowest += np.minimum(square - MEAN, 0).mean(1)
    return batch / (steps - burn_in), lowest / (steps - burn_in)
