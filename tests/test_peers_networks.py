"""The peer of gated networks is the engine's network, and its batches have the same law."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import networks, peers
from benchmarks.peers import network_peers
from causal_sgd.supervised import losses

pytestmark = [
    pytest.mark.usefixtures("quickly_compiled"),
    pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch"),
]
SIZES = networks.quick_sizes()


def test_both_networks_have_one_loss_and_gradient():
    import torch

    problem = networks.problem_of(SIZES)
    inputs = problem.images.shape[1] + 1
    model = networks.network(inputs)
    params = jax.jit(model.init)(jax.random.key(0))
    theirs = network_peers._network(torch, problem)
    behind = params["network"]
    values = {
        "gates": params["gates"],
        "first.weight": behind["first"],
        "first.bias": behind["offsets"],
        "last.weight": behind["last"][None],
        "last.bias": behind["intercept"][None],
    }
    assert {name: value.shape for name, value in values.items()} == {
        name: tuple(value.shape) for name, value in theirs.state_dict().items()
    }
    theirs.load_state_dict({name: torch.tensor(np.asarray(v)) for name, v in values.items()})
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, inputs)).astype("f"), rng.choice([-1.0, 1.0], 9).astype("f")
    lost = torch.nn.SoftMarginLoss()(theirs(torch.tensor(x)), torch.tensor(y))
    lost.backward()

    @jax.jit
    def ours(params):
        def loss(params):
            return jnp.mean(losses.logistic(model.predictions(params, jnp.asarray(x)), y))

        return jax.value_and_grad(loss)(params)

    value, slopes = ours(params)
    np.testing.assert_allclose(value, lost.item(), rtol=1e-5)
    np.testing.assert_allclose(slopes["gates"], theirs.gates.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        slopes["network"]["first"], theirs.first.weight.grad, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("batches", peers.BATCHES)
def test_batches_have_the_flips_of_the_world(batches):
    """How often the colour is the label, and the label the bit of its image."""
    import torch

    problem = networks.problem_of(SIZES)
    torch.manual_seed(0)
    draw = network_peers._batches(torch, problem, batches)
    pairs = [draw() for _ in range(300)]
    x, y = (np.concatenate([np.asarray(pair[part]) for pair in pairs]) for part in (0, 1))
    assert x.shape[1] == problem.images.shape[1] + 1
    shares = [float(np.mean(np.asarray(a)[:, -1] == np.asarray(b))) for a, b in pairs]
    if batches.startswith("drawn"):
        expected = 1 - np.mean(networks.COLOUR_FLIPS)
        error = np.std(shares) / len(shares) ** 0.5
    else:
        own = [
            float(np.mean(a[:, -1] == b)) for a, b in zip(problem.rows, problem.labels, strict=True)
        ]
        expected, error = np.mean(own), np.std(shares) / len(shares) ** 0.5
    assert abs(np.mean(shares) - expected) < 4.5 * error
    bits = {
        tuple(np.round(image, 5)): bit
        for image, bit in zip(problem.images, problem.bits, strict=True)
    }
    kept = np.mean(
        [bits[tuple(np.round(row[:-1], 5))] == label for row, label in zip(x, y, strict=True)]
    )
    if batches.startswith("drawn"):
        assert abs(kept - 0.75) < 4.5 * (0.75 * 0.25 / len(y)) ** 0.5


def test_training_counts_its_steps_and_judges_every_environment():
    problem = networks.problem_of(SIZES)
    found = [
        peers.torch_network(problem, kind, learning_rate=0.1, seed=0, threads=1)
        for kind in peers.BATCHES
    ]
    assert all(each.accuracies.shape == (3,) and each.seconds > 0 for each in found)
