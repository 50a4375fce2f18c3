"""Peers on finite data sets simulate what the engine does, so that timings are comparable."""

import functools
import importlib.util
from typing import Any

import jax
import numpy as np
import optax
import pytest
from scipy import stats

from benchmarks import peers
from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.sensing.measurements import designs
from causal_sgd.training import run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Snapshot

DIM, EXAMPLES, STEPS, RUNS = 5, 24, 40, 3
RATE, SCALE = 0.03, 0.3
PEERS = ("numpy_design", "torch_design")
LEVEL = 1e-3 / 3


@functools.cache
def work() -> dict[str, Any]:
    world = worlds.two_point(
        dim=DIM, invariant_rank=2, spurious_rank=1, mean=1.0, spread=3.0, basis="canonical"
    )
    design = designs.shared_design(
        jax.random.key(1), dim=DIM, num_environments=2, num_examples=EXAMPLES
    )
    labels = measurements.fixed_design(design=design).init(
        jax.random.key(0), world(jax.random.key(0))
    )
    return {"world": world, "design": np.array(design), "labels": np.array(labels)}


def problem(order: np.ndarray, batch_size: int | None = None) -> peers.FiniteProblem:
    return peers.FiniteProblem(
        design=work()["design"],
        labels=work()["labels"],
        order=order,
        init_scale=SCALE,
        learning_rate=RATE,
        batch_size=batch_size,
    )


def engine(seeds: int, batch_size: int, **options: Any) -> np.ndarray:
    """Final factors [seeds, d, d] of runs that go through the environments in turn."""
    algorithm = sgd(
        world=work()["world"],
        sampler=samplers.cyclic(batch_size=batch_size),
        measurement=measurements.fixed_design(design=work()["design"], **options),
        model=models.factored(dim=DIM, init_scale=SCALE),
        optimizer=optax.sgd(RATE),
    )

    def factor(snapshot: Snapshot) -> jax.Array:
        return snapshot.model.factor(snapshot.params)

    one = functools.partial(run, algorithm=algorithm, metrics={"factor": factor}, num_steps=STEPS)
    return np.asarray(
        jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), seeds)).metrics["factor"]
    )[:, -1]


def peer(name: str, runs: int, batch_size: int | None, **options: Any) -> np.ndarray:
    if name == "torch_design" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    order = np.broadcast_to(np.arange(STEPS)[:, None] % 2, (STEPS, runs)).copy()
    result = getattr(peers, name)(problem(order, batch_size), **options)
    assert result.seconds_per_step > 0
    assert result.factors.shape == (runs, DIM, DIM)
    return result.factors


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("batch_size", [None, EXAMPLES])
def test_full_batches_take_the_engine_s_path(name: str, batch_size: int | None) -> None:
    """A mini-batch of all the examples too: it is the same set whatever is drawn."""
    expected = full_engine()
    assert np.abs(expected[0] - SCALE * np.eye(DIM)).max() > 0.1, "nothing was learned"
    for factors in peer(name, RUNS, batch_size):
        np.testing.assert_allclose(factors, expected[0], rtol=1e-3, atol=1e-4)


@functools.cache
def full_engine() -> np.ndarray:
    return engine(1, EXAMPLES, full=True)


def test_runs_in_different_environments_do_not_mix() -> None:
    """Runs that see the environments in opposite orders, and their own order alone."""
    order = np.stack([np.arange(STEPS) % 2, (np.arange(STEPS) + 1) % 2, np.zeros(STEPS, int)], 1)
    for name in PEERS:
        if name == "torch_design" and importlib.util.find_spec("torch") is None:
            continue
        together, alone = (
            [getattr(peers, name)(problem(order[:, columns])).factors for columns in choice]
            for choice in ([[0, 1, 2]], [[0], [1], [2]])
        )
        np.testing.assert_allclose(together[0], np.concatenate(alone), rtol=1e-4, atol=1e-5)
        assert np.abs(together[0][0] - together[0][1]).max() > 1e-3


@functools.cache
def sample(name: str) -> np.ndarray:
    """Final invariant errors and a signal of independent runs with mini-batches of 6, [2, runs]."""
    runs = 300
    factors = (
        engine(runs, 6, largest_batch=6)
        if name == "engine"
        else peer(name, runs, 6, seed=5, **({"together": 7} if name == "torch_design" else {}))
    )
    products = factors @ factors.swapaxes(1, 2)
    invariant = np.diag([1.0, 1.0, 0.0, 0.0, 0.0])
    return np.stack([np.linalg.norm(products - invariant, axis=(1, 2)), products[:, 0, 2]])


@pytest.mark.parametrize(
    ("one", "other"),
    [("engine", "numpy_design"), ("engine", "torch_design"), ("numpy_design", "torch_design")],
)
def test_mini_batches_have_one_law(one: str, other: str) -> None:
    for mine, theirs in zip(sample(one), sample(other), strict=True):
        assert np.ptp(mine) > 0.05, "nothing is random"
        assert stats.ks_2samp(mine, theirs).pvalue > LEVEL  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", PEERS)
def test_bad_sizes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        peer(name, 1, EXAMPLES + 1)
    with pytest.raises(ValueError, match="order"):
        getattr(peers, name)(problem(np.zeros((4, 1), int)))
