"""The references of studies: the simulations behind them, and comparisons that have power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from causal_sgd.studies.sensing import phase_diagram

plain = pytest.importorskip("benchmarks.plain_simulations")


@pytest.mark.parametrize("pooled", [False, True])
def test_plain_batch_gradients_have_the_moments_of_drawn_measurements(pooled: bool) -> None:
    runs, dim, batch, spread = 20_000, 4, 7, 3.0
    random = np.random.default_rng(0)
    matrix = random.standard_normal((dim, dim))
    residual = ((matrix + matrix.T) / 2).astype(np.float32)
    cell = plain.Setting(
        dim, 2, 1, 0.1, spread, batch, 1, pooled=pooled, noise=0.0 if pooled else 0.8
    )
    law = plain.mixture if pooled else plain.gradient
    gradients = law(random, np.tile(residual, (runs, 1, 1)), cell)
    x = random.standard_normal((runs, batch, dim, dim))
    inner = np.einsum("nmij,ij->nm", x, residual) + cell.noise * random.standard_normal(x.shape[:2])
    if pooled:
        inner -= spread * random.choice([-1, 1], inner.shape) * x[:, :, 2, 2]
    drawn = np.einsum("nm,nmij->nij", inner, x)
    drawn = (drawn + drawn.transpose(0, 2, 1)) / 2
    upper = np.triu_indices(dim)
    for power in (1, 2):  # 20 numbers: one in 10^5 passes 5 by chance
        one, other = (values[:, *upper] ** power for values in (gradients, drawn))
        error = np.sqrt((one.var(0) + other.var(0)) / runs)
        assert np.max(np.abs(one.mean(0) - other.mean(0)) / error) < 5


def test_medians_agree_with_the_reference_and_would_not_with_medians_of_eight_seeds() -> None:
    normal = stats.norm.ppf((np.arange(192) + 0.5) / 192)
    former = {3: {2: 1.49}, 5: {2: 1.22}, 7: {2: 0.74}}  # learning rate, M: by eight seeds
    for index, cells in former.items():
        medians, errors = np.array(phase_diagram.REFERENCE[index]).T
        deviation = errors[:, None] * (512 / (np.pi / 2)) ** 0.5  # of one run, near the median
        runs = medians[:, None] + deviation * normal
        reference = list(phase_diagram.REFERENCE[index])
        assert phase_diagram.median_deviation(runs, reference) < 4
        for spread, median in cells.items():
            reference[spread - 1] = (median, errors[spread - 1])
        assert phase_diagram.median_deviation(runs, reference) > 4


def test_the_plain_simulation_has_the_numbers_of_the_diagram() -> None:
    base, cell = phase_diagram.BASE, plain.DIAGRAM
    numbers = (base.dim, base.invariant_rank, base.spurious_rank, base.batch_size, base.steps)
    assert numbers == (cell.dim, cell.invariant, cell.spurious, cell.batch, cell.steps)
    assert (base.mean, base.init_scale) == (cell.mean, cell.start)
    np.testing.assert_allclose(plain.RATES, phase_diagram.LEARNING_RATES)
