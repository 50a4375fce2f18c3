"""The study of natural tables computes what it says, against plain NumPy."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from scipy import optimize

from causal_sgd.studies.supervised import _natural_tables as tables
from causal_sgd.studies.supervised._natural_tables import GROUPS, Problem
from causal_sgd.supervised import data
from causal_sgd.theory import sparse

for package in ("sklearn", "linearmodels", "causaldata"):
    pytest.importorskip(package)

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def rows(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised inputs and labels of a whole table or of the rows that train, and owners."""
    table = data.gapminder()
    assert problem.table == "gapminder"
    x, y = np.array(table.x, float), np.array(table.y)
    owners = np.unique(table.environment, return_inverse=True)[1]
    if problem.centred:
        for place in range(5):
            x[owners == place] -= x[owners == place].mean(0)
            y[owners == place] -= y[owners == place].mean()
    trains = owners != problem.held_out
    x = (x - x[trains].mean(0)) / x[trains].std(0)
    return x, (y - y[trains].mean()) / y.std(), owners


@pytest.mark.parametrize(
    "problem",
    [Problem("gapminder"), Problem("gapminder", centred=True), Problem("gapminder", held_out=3)],
)
def test_least_squares_and_errors_are_those_of_the_rows(problem: Problem) -> None:
    x, y, owners = rows(problem)
    trains = owners != problem.held_out
    expected = np.linalg.lstsq(x[trains], y[trains])[0]
    np.testing.assert_allclose(tables.pooled(problem), expected, rtol=1e-9)
    found = tables.moments(problem)
    assert found.shares.sum() == pytest.approx(1)
    if problem.held_out < 0:
        return
    assert found.shares[3] == 0
    some = np.stack([expected, 2 * expected])
    errors = [np.mean((y[~trains] - x[~trains] @ weights) ** 2) for weights in some]
    np.testing.assert_allclose(tables.held_out_error(problem, some), errors, rtol=1e-9)


def test_what_is_known_beforehand_follows_from_residuals() -> None:
    """Log-income contradicts itself nowhere; log-population does, and its threshold is a root."""
    problem = Problem("gapminder")
    x, y, owners = rows(problem)
    look = tables.outlook(problem)
    assert look.dissent[0] == 0
    others = x[:, [0, 2]]
    residuals = y - others @ np.linalg.lstsq(others, y)[0]
    pull = np.array([np.mean((x[:, 1] * residuals)[owners == place]) for place in range(5)])
    shares = np.bincount(owners) / len(owners)
    pull = pull * np.sign(shares @ pull)
    assert look.dissent[1] == pytest.approx(shares[pull < 0].sum())

    def exponent(rate: float) -> float:
        return float(shares @ np.log(np.abs(1 + rate * pull)))

    threshold = look.threshold[1]
    root = optimize.brentq(exponent, 0.5 * threshold, threshold)
    assert threshold == pytest.approx(root, rel=0.01)
    weights = np.zeros(3)
    weights[[0, 2]] = np.linalg.lstsq(others, y)[0]
    found = tables.moments(problem)
    numbers = found.inputs, found.cross
    law = sparse.growth_exponents(weights, *numbers, learning_rate=root, probabilities=shares)
    assert abs(law[1]) < 1e-4
    # Beyond the stable step full gradients near least squares overshoot more and more.
    least, second = tables.pooled(problem), np.tensordot(found.shares, found.inputs, 1)
    sizes = []
    for rate in (0.99 * look.stable, 1.01 * look.stable):
        error = np.array([1e-3, 1e-3, -1e-3])
        for _ in range(400):
            error = error - 2 * rate * np.abs(least) * (second @ error)
        sizes.append(np.abs(error).max())
    assert sizes[0] < 1e-3 < sizes[1]


def test_smaller_tables_share_a_program_with_larger_ones() -> None:
    """Environments and inputs that fill up change nothing: three steps are those of NumPy."""
    steps, rate, group = 3, 0.3, GROUPS[1]
    problem = Problem("gapminder", held_out=4)
    number = tables.problems(group).index(problem)
    cell = tables.cell(group, steps)
    keys = jax.random.split(jax.random.key(1), 8)
    run = jax.jit(jax.vmap(lambda key: cell(key, problem=number, learning_rate=rate)))
    weights = run(keys).metrics["weights"][:, 0]
    assert (weights[:, 3:] == 0).all()
    found = tables.moments(problem)
    reached = []
    for order in itertools.product(range(4), repeat=steps):
        u, v = np.full(3, tables.INIT_SCALE), np.full(3, tables.INIT_SCALE)
        for place in order:
            slope = found.inputs[place] @ (u**2 - v**2) - found.cross[place]
            u, v = u * (1 - rate * slope), v * (1 + rate * slope)
        reached.append(u**2 - v**2)
    distances = np.abs(weights[:, None, :3] - np.array(reached)[None]).max(2)
    assert distances.min(1).max() < 1e-6
    assert len(set(distances.argmin(1))) > 3


@pytest.mark.slow
def test_plain_numpy_is_as_far_from_the_lasso() -> None:
    """In the table of diabetes the law is missed by more than was expected, by our steps or not."""
    found, rate, runs, steps = tables.moments(Problem("diabetes")), 0.2, 64, 20_000
    rng = np.random.default_rng(0)
    u = np.full((runs, 9), tables.INIT_SCALE)
    v, mean = u.copy(), np.zeros((runs, 9))
    for step in range(steps):
        place = rng.choice(4, runs, p=found.shares)
        slope = np.einsum("rij,rj->ri", found.inputs[place], u**2 - v**2) - found.cross[place]
        u, v = u * (1 - rate * slope), v * (1 + rate * slope)
        mean += (step >= tables.AVERAGED * steps) * (u**2 - v**2)
    mean /= (1 - tables.AVERAGED) * steps
    law, least = tables.lasso(Problem("diabetes"), rate), tables.pooled(Problem("diabetes"))

    def ratio(runs: np.ndarray) -> float:
        whole = mean[runs].mean(0)
        return float(np.abs(whole - law).sum() / np.abs(whole - least).sum())

    error = np.std([ratio(rng.integers(0, runs, runs)) for _ in range(200)])
    assert abs(ratio(np.arange(runs)) - 0.176) < 3 * np.hypot(error, 0.014)
    assert error < 0.02
