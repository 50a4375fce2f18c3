"""The peers of the benchmarks simulate the same law, so that their timings are comparable."""

import functools
import importlib.util
import itertools
import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks import peers
from support.cases import few

RUNS = 144
# Near the transition, so that the final values are widely spread and a wrong law shows.
SETTING = {
    "dim": 8,
    "invariant_rank": 2,
    "spurious_rank": 2,
    "mean": 1.0,
    "spread": 3.0,
    "learning_rate": 0.1,
    "batch_size": 61,
    "init_scale": 0.01,
    "steps": 150,
}
# Slabs of 31 and 30 of the 61 measurements: the shorter one is easily lost or counted twice.
SLABS = {"slab_bytes": 40 * RUNS * 8**2 * 4}

# First seeds and options of the samples. Seeds do not overlap: compared samples are independent.
SAMPLES = {
    "numpy_loop": (0, {}),
    "numpy_plain": (4000, {}),
    "torch_loop": (1000, {}),
    "torch_batched": (2000, SLABS),
    "torch_func": (5000, {}),
    "jax_drawn": (3000, SLABS),
}
PAIRS = list(itertools.combinations(SAMPLES, 2))


QUICK = ("numpy_loop",)  # the others compile for many seconds


# 15 pairs and 2 outcomes: with new seeds, correct peers would fail somewhere once in 1,000 times.
LEVEL = 1e-3 / (2 * len(PAIRS))


def _simulate(name, seeds, **change):
    """Simulate these seeds with one peer; return rows of spurious signals and invariant errors."""
    if "torch" in name and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    options = {"slab_bytes": change.pop("slab_bytes")} if "slab_bytes" in change else {}
    peer, problem = getattr(peers, name), peers.DrawnProblem(**(SETTING | change))
    if name in ("numpy_loop", "numpy_plain", "torch_loop"):
        results = [peer(problem, seed=seed) for seed in seeds]
    else:
        results = [peer(problem, seeds=seeds, **options)]
    assert all(result.seconds_per_step > 0 for result in results)
    factors = np.concatenate([result.factors for result in results]).astype(np.float64)
    assert factors.shape == (len(seeds), problem.dim, problem.rank or problem.dim)
    invariant, spurious = SETTING["invariant_rank"], SETTING["spurious_rank"]
    target = np.diag((np.arange(problem.dim) < invariant).astype(float))
    with np.errstate(over="ignore", invalid="ignore"):
        error = factors @ factors.swapaxes(1, 2) - target
        signal = factors[:, invariant : invariant + spurious]
        return np.stack([np.linalg.norm(signal, axis=(1, 2)), np.linalg.norm(error, axis=(1, 2))])


@functools.cache
def _sample(name, **change):
    first, options = SAMPLES[name]
    outcomes = _simulate(name, range(first, first + RUNS), **options, **change)
    return np.nan_to_num(outcomes, nan=np.inf)  # a diverged run counts as infinitely large


def _pvalue(one, other):
    return min(stats.ks_2samp(mine, theirs).pvalue for mine, theirs in zip(one, other, strict=True))


@pytest.mark.parametrize(("one", "other"), few(PAIRS, {}))
def test_peers_agree_in_distribution(one, other):
    assert _pvalue(_sample(one), _sample(other)) > LEVEL


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.2}, {"learning_rate": 0.05}, {"spread": 4.0}, {"batch_size": 15}]
)
def test_comparison_notices_a_wrong_law(change):
    """Such as the factor of two between the two usual scalings of the loss."""
    assert _pvalue(_sample("jax_drawn"), _sample("numpy_loop", **change)) < LEVEL


@pytest.mark.parametrize("name", few(SAMPLES, QUICK))
def test_large_batches_reach_the_population_dynamics(name):
    """Without heterogeneity each direction is a scalar map, but for the batch's noise."""
    change = {"spread": 0.0, "mean": 0.5, "batch_size": 4000, "steps": 60}
    invariant = spurious = other = SETTING["init_scale"]
    eta = SETTING["learning_rate"]
    for _ in range(change["steps"]):
        invariant *= 1 + eta * (1 - invariant**2)
        spurious *= 1 + eta * (0.5 - spurious**2)
        other *= 1 - eta * other**2
    signal, error = _simulate(name, [7], **change)
    np.testing.assert_allclose(signal, np.sqrt(2) * spurious, rtol=0.15)
    expected = np.sqrt(2 * (1 - invariant**2) ** 2 + 2 * spurious**4 + 4 * other**4)
    np.testing.assert_allclose(error, expected, rtol=0.15)


@pytest.mark.parametrize("name", few(SAMPLES, QUICK))
def test_few_columns_learn_what_they_reach(name):
    """The factor starts at columns of the identity; two of them find the invariant signal alone."""
    signal, error = _simulate(name, [7], rank=2, spread=0.0, batch_size=4000, steps=100)
    assert signal < 0.2
    np.testing.assert_allclose(error, 0, atol=0.5)


@pytest.mark.parametrize("name", few(SAMPLES, QUICK))
def test_seeds_decide(name):
    once, again = (_simulate(name, [3, 4], steps=20) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert np.all(once[:, 0] != once[:, 1])


@pytest.mark.parametrize("name", SAMPLES)
def test_divergence_is_data(name):
    assert not np.isfinite(_simulate(name, [5], spread=100.0, init_scale=1.0, steps=40)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"invariant_rank": 7}, "invariant_rank and spurious_rank"),
        ({"spurious_rank": 0}, "invariant_rank and spurious_rank"),
        ({"batch_size": 0}, "batch_size"),
        ({"steps": 1}, "steps"),
    ],
)
def test_bad_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        peers.DrawnProblem(**(SETTING | change))


@pytest.mark.parametrize("name", ["torch_batched", "torch_func", "jax_drawn"])
def test_no_seeds_are_refused(name):
    with pytest.raises(ValueError, match="seeds"):
        _simulate(name, [])


def test_missing_torch_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        peers.torch_loop(peers.DrawnProblem(**SETTING), seed=0)


def test_time_per_run_divides_by_the_runs():
    result = peers.PeerResult(np.ones((4, 3, 3)), 2.0)
    assert result.seconds_per_step_and_run == 0.5
