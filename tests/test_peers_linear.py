"""Peers of invariant linear regression end at the engine's weights, from the same examples."""

import importlib.util

import jax
import numpy as np
import optax
import pytest

from benchmarks import invariance, peers
from causal_sgd import algorithms
from causal_sgd.supervised import estimators, measurements, metrics, models, worlds
from causal_sgd.supervised._moments import MomentData, Moments
from causal_sgd.training import run, samplers
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")
STEPS = 300
RATE = 0.01


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 40, 4)) * np.array([0.5, 1.0, 2.0])[:, None, None]
    y = x @ np.array([1.0, -0.5, 0.0, 0.3]) + rng.normal(size=(3, 40))
    x[..., 3] += np.array([0.2, 0.5, 1.0])[:, None] * y
    return x, y


def engine_weights(x, y, method):
    rows = np.repeat(np.arange(3), x.shape[1])
    algorithm = algorithms.penalised(
        world=worlds.from_arrays(x.reshape(-1, x.shape[2]), y.ravel(), rows),
        measurement=measurements.moments(),
        sampler=samplers.stratified(batch_size=3),
        model=models.linear(dim=x.shape[2]),
        objective=invariance.objective(method, 0.7),
        optimizer=optax.adam(RATE),
    )
    key = jax.random.key(0)
    trace = jax.jit(
        lambda key: run(key, algorithm=algorithm, metrics=[metrics.weights], num_steps=STEPS)
    )(key)
    return np.asarray(trace.metrics["weights"][-1])


@pytest.mark.parametrize("method", list(invariance.METHODS))
def test_peers_end_at_the_weights_of_the_engine(examples, method):
    x, y = examples
    expected = engine_weights(x, y, method)
    assert np.abs(expected).max() > 0.1
    problem = peers.LinearProblem(x, y, method, 0.7, RATE, STEPS)
    for peer in (peers.numpy_moments, peers.numpy_rows):
        result = peer(problem)
        np.testing.assert_allclose(result.weights, expected, atol=2e-5)
        assert result.seconds > 0


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch")
@pytest.mark.parametrize("method", list(invariance.METHODS))
def test_torch_ends_at_the_weights_of_numpy(examples, method):
    problem = peers.LinearProblem(examples[0], examples[1], method, 0.7, RATE, STEPS)
    expected = peers.numpy_rows(problem).weights
    np.testing.assert_allclose(peers.torch_rows(problem).weights, expected, atol=1e-4)


@pytest.fixture(scope="module")
def engine_eills(examples):
    """The weights that the engine finds at a strength, in one program for all."""
    x, y = examples
    rows = np.repeat(np.arange(3), x.shape[1])
    world = draw_world(worlds.from_arrays(x.reshape(-1, x.shape[2]), y.ravel(), rows))
    data = MomentData(Moments(world.second_moments, world.counts))
    return jax.jit(lambda gamma: estimators.eills(gamma)(data, world).estimate)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 20.0])
def test_the_loop_over_subsets_finds_the_weights_of_the_engine(examples, engine_eills, gamma):
    z = np.concatenate([examples[0], examples[1][:, :, None]], 2)
    second = z.transpose(0, 2, 1) @ z / z.shape[1]
    found, seconds = peers.numpy_eills(second, gamma)
    np.testing.assert_allclose(found, engine_eills(gamma), atol=1e-5)
    assert seconds > 0
