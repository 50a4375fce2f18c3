"""Runs of diagonal networks on few examples, and the interpolators that they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.types import Array, Batch, Key, Sampler, State, Trace

DIM, EXAMPLES, SPARSITY = 30, 20, 3
SPURIOUS = SPARSITY  # the place of the input whose weight differs between environments
TARGET = np.repeat([1.0, 0.0], [SPARSITY, DIM - SPARSITY])
ALPHA = 0.3  # of the start: 2 u v = alpha^2
FULL_STEPS, SINGLE_STEPS, FRAMES = 8000, 40_000, 100
DESIGNS = 24  # the key of all designs
SETTING = {"learning_rate": 0.1, "alpha": ALPHA, "mean": 0.0, "spread": 0.0, "apart": 0.0}


def full(
    key: Key,
    *,
    learning_rate: float | Array,
    alpha: float | Array,
    mean: float | Array,
    spread: float | Array,
    apart: float | Array,
    design: int | Array,
) -> Trace:
    """HeteroSGD with all examples, and pooled training after half of the steps."""
    return _trained(
        key, learning_rate, alpha, mean, spread, design_of(design, apart), design, single=False
    )


def single(
    key: Key, *, learning_rate: float | Array, alpha: float | Array, design: int | Array
) -> Trace:
    """SGD with one example a step."""
    inputs = design_of(design, 0.0)
    return _trained(key, learning_rate, alpha, 0.0, 0.0, inputs, design, single=True)


def design_of(number: int | Array, apart: float | Array) -> Array:
    """Inputs [n, d]: normal, or with the spurious column orthogonal to others, its square n."""
    import jax
    import jax.numpy as jnp

    from causal_sgd import random

    own = random.fold_in(jax.random.key(DESIGNS), jnp.asarray(number, int))
    inputs = random.normals(own, (EXAMPLES, DIM), float)
    column = inputs[:, SPURIOUS]
    unit = column / jnp.sqrt(jnp.sum(column**2))
    others = inputs - unit[:, None] * jnp.sum(unit[:, None] * inputs, 0)[None, :]
    alone = others.at[:, SPURIOUS].set(unit * EXAMPLES**0.5)
    return jnp.where(jnp.asarray(apart) > 0, alone, inputs)


def _trained(
    key: Key,
    learning_rate: float | Array,
    alpha: float | Array,
    mean: float | Array,
    spread: float | Array,
    inputs: Array,
    design: int | Array,
    *,
    single: bool,
) -> Trace:
    import jax.numpy as jnp
    import optax

    from causal_sgd import random, training
    from causal_sgd.supervised import measurements, models, worlds

    weights = jnp.asarray(np.stack([TARGET, TARGET]), float)
    weights = weights.at[:, SPURIOUS].set(mean + spread * jnp.array([1.0, -1.0]))
    measurement = measurements.examples(most=1) if single else measurements.moments()
    algorithm = training.sgd(
        world=worlds.fixed_design(weights, design=inputs, target=TARGET),
        sampler=training.samplers.hetero(batch_size=1) if single else _two_stages(),
        measurement=measurement,
        model=models.hadamard(dim=DIM, signed=True, init_scale=alpha / 2**0.5),
        optimizer=optax.sgd(learning_rate),
    )
    watched = {
        "estimate": lambda snapshot: snapshot.estimate,
        "log_scale": lambda snapshot: (
            jnp.log(2.0)
            + jnp.log(jnp.abs(snapshot.params["positive"]))
            + jnp.log(jnp.abs(snapshot.params["negative"]))
        ),
    }
    steps = SINGLE_STEPS if single else FULL_STEPS
    return training.run(
        random.fold_in(key, jnp.asarray(design, int)),
        algorithm=algorithm,
        metrics=watched,
        num_steps=steps,
        record_every=steps // FRAMES,
    )


def _two_stages() -> Sampler:
    """HeteroSGD in the first half of the run, both environments in every step of the second."""
    import jax.numpy as jnp

    from causal_sgd.training import samplers
    from causal_sgd.types import Batch, Sampler

    together, alone = samplers.stratified(batch_size=2), samplers.hetero(batch_size=2)

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        batch, _ = together.draw(key, step, state)
        one, _ = alone.draw(key, step, state)
        counts = jnp.where(batch.environments == one.environments, 2, 0)
        late = step >= FULL_STEPS // 2
        return Batch(batch.environments, jnp.where(late, batch.counts, counts)), state

    return Sampler(together.init, draw, 2, checked=True)


def row_of(dataset: xr.Dataset, **settings: float) -> xr.Dataset:
    """The runs of one setting; what is left out is as in `SETTING`."""
    wanted = {name: settings.get(name, value) for name, value in SETTING.items()}
    matches = [
        np.isclose(dataset[name], value) for name, value in wanted.items() if name in dataset.coords
    ]
    (place,) = np.flatnonzero(np.all(matches, axis=0))
    return dataset.isel(row=int(place), seed=0)


def estimates(runs: xr.Dataset) -> np.ndarray:
    """The weights at the end, [designs, d]."""
    return runs.estimate.isel(step=-1).transpose("design", ...).values


def gains(runs: xr.Dataset, frame: int = -1) -> np.ndarray:
    """The gain up to a frame, [designs, d]: -log of the scale over that of the start."""
    logs = runs.log_scale.transpose("design", "step", ...).values
    return logs[:, 0] - logs[:, frame]


def errors(weights: np.ndarray) -> np.ndarray:
    """Distances of weights [..., d] from A*, without the spurious coordinate."""
    return np.linalg.norm(np.delete(weights - TARGET, SPURIOUS, -1), axis=-1)


def plateau(runs: xr.Dataset) -> np.ndarray:
    """The mean weights over the second quarter of the run, at a constant step, [designs, d]."""
    late = (runs.step >= FULL_STEPS // 4) & (runs.step < FULL_STEPS // 2)
    return runs.estimate.isel(step=late.values).mean("step").transpose("design", ...).values


def interpolators(scales: np.ndarray) -> np.ndarray:
    """Interpolators of the target's labels for scales of the entropy, [rows, designs, d]."""
    import jax

    from causal_sgd.theory import sparse

    inputs = jax.jit(jax.vmap(lambda number: design_of(number, 0.0)))(np.arange(scales.shape[1]))
    labels = np.asarray(inputs) @ TARGET
    return np.asarray(sparse.hyperbolic_interpolator(inputs, labels, scales))
