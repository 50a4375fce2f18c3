"""Experiments with order parameters: `dim` as an axis, buffers of optimizers, refusals."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from causal_sgd.cli.axes import check_axis_used
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CHAIN = Experiment(
    model="order-parameters",
    measurement="order-parameter-law",
    rank=3,
    invariant_rank=2,
    spurious_rank=1,
    batch_size=2000,
    steps=10,
    init_scale=0.1,
    metrics=("invariant_error", "complement_signal"),
)


@pytest.mark.slow
def test_dimension_and_batch_size_are_axes_of_one_program() -> None:
    axes = {"dim": [20, 10**6], "batch_size": [10**3, 10**7]}
    dataset = sweep(CHAIN.replace(rank=1).cell(), axes=axes, seeds=2, tile=8)
    start = dataset.complement_signal.sel(step=0)
    # alpha^2 k (d - r) in the mean.
    np.testing.assert_allclose(start.sel(dim=10**6), 0.1 * (10**6) ** 0.5, rtol=0.01)
    assert (start.sel(dim=20) < 2).all()
    assert np.isfinite(dataset.invariant_error.sel(dim=20)).all()


FIELDS: list[dict[str, Any]] = [
    {"optimizer": "momentum", "average": "tail"},
    {"measurement": "order-parameter-limit", "sampler": "pooled"},
    {"optimizer": "nesterov"},
    {"optimizer": "sgdw", "accumulate": 2},
    {"average": "moving", "clip_norm": 1.0},
    {"measurement": "population", "evolution": "redraw"},
    {"evolution": "drift", "schedule": "cosine"},
]


@pytest.mark.slow
@pytest.mark.parametrize("fields", FIELDS)
def test_slots_and_the_world_fit_the_other_choices(fields: dict[str, Any]) -> None:
    trace = jax.jit(CHAIN.replace(**fields).cell())(jax.random.key(0))
    assert np.isfinite(trace.metrics["invariant_error"]).all()


def test_a_world_file_has_its_own_dimension_and_ranks(tmp_path) -> None:
    path, rng = tmp_path / "world.npz", np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(30, 3)))[0]
    shared, own = directions[:, :2], directions[:, 2:]
    spurious = np.stack([s * own @ own.T for s in (-5.0, 7.0)])
    np.savez(path, invariant=shared @ shared.T, spurious=spurious)
    cell = CHAIN.replace(world_file=path, invariant_rank=1).cell()
    shapes = jax.eval_shape(lambda: cell(jax.random.key(0)))
    assert set(shapes.metrics) == set(CHAIN.metrics)
    with pytest.raises(ValueError, match="dim must not be swept where world_file is given"):
        CHAIN.replace(world_file=path).cell()(jax.random.key(0), dim=30)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": None}, "rank must be given where model is 'order-parameters'"),
        ({"measurement": "gaussian-law"}, "measurement must be 'order-parameter-law' or"),
        ({"model": "factored"}, "model must be 'order-parameters' where measurement is"),
        ({"optimizer": "adam"}, "optimizer must be 'sgd' or 'momentum' or .*, got 'adam'"),
        ({"algorithm": "fedavg"}, "algorithm must be 'sgd' where model is"),
        ({"evolution": "rotate"}, "evolution must not be 'rotate' where model is"),
        ({"init": "gaussian"}, "init must not be given where model is"),
        ({"dim": 5}, "dim must be at least .* = 9 .*, got 5"),
        ({"batch_ratio": -1.0, "measurement": "order-parameter-limit"}, "batch_ratio must be"),
    ],
)
def test_what_the_chain_does_not_hold_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CHAIN.replace(**fields).cell()(jax.random.key(0))


def test_dim_is_no_axis_of_other_models() -> None:
    cell = Experiment(dim=5, rank=2).cell()
    with pytest.raises(ValueError, match="dim must not be swept unless model is 'order-param"):
        sweep(cell, axes={"dim": [5, 6]})
    with pytest.raises(ValueError, match="--x must be a parameter that can be swept; dim cannot"):
        check_axis_used("--x", "dim", Experiment())
    check_axis_used("--x", "dim", CHAIN)


def test_the_limit_has_the_ratio_of_batch_size_and_dimension() -> None:
    limit = CHAIN.replace(dim=500).limit()
    assert (limit.measurement, limit.batch_ratio) == ("order-parameter-limit", 4.0)
    assert limit.limit() is limit
    with pytest.raises(ValueError, match="measurement must be 'order-parameter-law' for the limit"):
        Experiment().limit()
