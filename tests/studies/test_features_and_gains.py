"""What the studies of redundant features and of diagonal networks draw and compute."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.studies.supervised import _benign_runs, _diagonal_numbers, _diagonal_runs
from causal_sgd.studies.supervised._either_way import either_way

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_a_column_apart_is_orthogonal_to_the_others() -> None:
    inputs, alone = (np.asarray(_diagonal_runs.design_of(3, apart)) for apart in (0.0, 1.0))
    place = _diagonal_runs.SPURIOUS
    square = alone.T @ alone / len(alone)
    expected = np.eye(_diagonal_runs.DIM)[place]
    np.testing.assert_allclose(square[place], expected, atol=1e-6)
    cosine = alone[:, place] @ inputs[:, place] / np.linalg.norm(inputs[:, place])
    assert cosine == pytest.approx(len(alone) ** 0.5, rel=1e-5)


def test_the_error_of_a_ratio_of_gains_is_that_of_samples() -> None:
    rng = np.random.default_rng(0)
    weights = np.where(np.arange(_diagonal_runs.DIM) < _diagonal_runs.SPARSITY, 4.0, 1.0)
    found = np.array(
        [
            _diagonal_numbers.shape(weights * rng.chisquare(3, size=(50, _diagonal_runs.DIM)))
            for _ in range(400)
        ]
    )
    assert found[:, 0].mean() == pytest.approx(4, rel=0.02)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.12)


@pytest.mark.parametrize("pooled", [True, False])
def test_one_sampler_is_pooled_or_of_one_environment(pooled: bool) -> None:
    sampler = either_way(pooled, batch_size=2)
    state = sampler.init(jax.random.key(0), jnp.array([0.0, 0.5, 0.5]))
    counts = np.array(
        [sampler.draw(jax.random.key(i), jnp.asarray(i), state)[0].counts for i in range(20)]
    )
    expected = [[0, 1, 1]] if pooled else [[0, 0, 2], [0, 2, 0]]
    assert np.unique(counts, axis=0).tolist() == expected


def test_the_share_of_a_state_is_that_of_the_minimum_to_which_it_flows() -> None:
    """Plain gradient descent with a tiny step keeps the share."""
    weak, s, w = _benign_runs.WEAK, 1.2, 0.7
    for _ in range(40_000):
        r = 1 - s**2 - weak * w**2
        s, w = s * (1 + 1e-3 * r), w * (1 + 1e-3 * weak * r)
    kept = np.log(1.2) - np.log(0.7) / weak
    assert float(_benign_runs.share_at(np.array([kept]))[0]) == pytest.approx(s**2, abs=1e-3)


def test_the_plain_simulation_keeps_the_product_of_both_factors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = pytest.importorskip("benchmarks.plain_networks")
    random = np.random.default_rng(0)
    inputs = random.standard_normal((2, plain.EXAMPLES, plain.DIM))
    errors, gain = plain.trained(random, inputs, 1e-3, 4000, single=False)
    assert np.isnan(errors).all()  # 4000 steps of this size are too few
    errors, gain = plain.trained(random, inputs, 0.1, 4000, single=False)
    assert (gain[:, : plain.SPARSITY].mean(1) > 3 * gain[:, plain.SPARSITY :].mean(1)).all()
    plain.show("mean", lambda chosen: float(errors[chosen].mean()), 2, 1)
    low, _, high = capsys.readouterr().out.split(", ")[1].split()
    assert float(low) == pytest.approx(errors.min(), rel=1e-3)
    assert float(high) == pytest.approx(errors.max(), rel=1e-3)
