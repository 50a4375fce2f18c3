"""Estimators refuse what they cannot use, in one line that names it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import estimators
from support import estimators as loops

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("icp", {"level": 0.0}, "level must be a finite number above 0, got 0.0"),
        ("icp", {"level": 1.0}, "level must be a number above 0 and below 1, got 1.0"),
        ("regression_invariance", {"level": -0.1}, "level must be"),
        ("icp", {"correction": "holm"}, "correction must be one of bonferroni, environments"),
        ("eills", {"gamma": -1.0}, "gamma must be a finite number at least 0, got -1.0"),
        ("fair", {"gamma": float("nan")}, "gamma must be a finite number at least 0, got nan"),
        ("eills", {"gamma": 1.0, "penalty": -1.0}, "penalty must be a finite number at least 0"),
        ("eills", {"gamma": 1.0, "search": "best"}, "search must be one of exact, greedy"),
        ("eills", {"gamma": 1.0, "refit": 1}, "refit must be True or False, got 1"),
        ("anchor", {"strength": -2.0}, "strength must be a finite number at least 0, got -2.0"),
        ("without", {"inputs": [0, 0]}, "inputs must be different whole numbers, at least 0"),
        ("without", {"inputs": [0.5]}, "inputs must be different whole numbers, at least 0"),
        ("pooled", {"intercept": None}, "intercept must be True or False, got None"),
    ],
)
def test_arguments_out_of_range(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        getattr(estimators, name)(**arguments)
    assert "\n" not in str(caught.value)


def many_inputs(dim: int, environments: int = 2) -> tuple[Any, Any]:
    data = [np.eye(dim + 1)] * environments
    return loops.as_data(data), loops.as_world(data)


@pytest.mark.parametrize(
    ("estimator", "data", "message"),
    [
        (estimators.eills(1.0), many_inputs(16), "got p = 16; use search='greedy'"),
        (estimators.fair(1.0), many_inputs(16), "got p = 16; use search='greedy'"),
        (estimators.icp(), many_inputs(16), "icp visits all 2.p subsets .* got p = 16"),
        (estimators.regression_invariance(), many_inputs(17), "got p = 17"),
        (estimators.icp(), many_inputs(2, 1), "icp needs at least 2 environments, got 1"),
        (estimators.causal_dantzig(), many_inputs(2, 1), "needs at least 2 environments, got 1"),
        (estimators.without([2]), many_inputs(2), "inputs must be below the number of inputs, 2"),
        (estimators.pooled(), ((), None), "measurement must keep moments of its data"),
    ],
)
def test_data_that_do_not_serve(estimator: Any, data: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        estimator(*data)
    assert "\n" not in str(caught.value)


def test_missing_moments_give_no_answer() -> None:
    data, world = many_inputs(2)
    nothing = data._replace(training=data.training._replace(second=data.training.second * jnp.nan))
    for estimator in (estimators.eills(1.0), estimators.pooled()):
        program = jax.jit(lambda moments, estimator=estimator: estimator(moments, world))
        assert np.isnan(program(nothing).estimate).all()


@pytest.mark.slow
def test_a_small_environment_is_left_to_the_sets_that_it_can_judge() -> None:
    """FAIR and the test of coefficients never choose as many inputs as it has examples."""
    data = loops.drawn(0, dim=4, sizes=(3, 200))
    moments, world = loops.as_data(data), loops.as_world(data)
    for estimator in (estimators.fair(0.0), estimators.regression_invariance()):
        fit = jax.jit(lambda moments, estimator=estimator: estimator(moments, world))(moments)
        assert int(fit.support.sum()) < 3
        assert np.isfinite(fit.estimate).all()
