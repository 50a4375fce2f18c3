"""Tables that come with other packages are read as they are, and become worlds."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from causal_sgd.supervised import data, worlds

SIZES = {  # rows, inputs and environments
    "diabetes": (442, 9, 4),
    "munnell": (816, 7, 48),
    "wage_panel": (4360, 8, 9),
    "gapminder": (1704, 3, 5),
    "grunfeld": (220, 2, 11),
}
PACKAGES = {
    "diabetes": "sklearn",
    "gapminder": "causaldata",
    "grunfeld": "statsmodels",
}


def table(name: str, *args: str) -> data.Table:
    pytest.importorskip(PACKAGES.get(name, "linearmodels"))
    return getattr(data, name)(*args)


@pytest.mark.parametrize("name", SIZES)
def test_a_table_is_what_a_world_is_made_of(name: str) -> None:
    found = table(name)
    rows, inputs, environments = SIZES[name]
    assert found.x.shape == (rows, inputs)
    assert found.y.shape == found.environment.shape == (rows,)
    assert np.isfinite(found.x.to_numpy(float)).all()
    assert np.isfinite(found.y).all()
    assert len(np.unique(found.environment)) == environments
    factory = worlds.from_arrays(*found, standardise=True)
    assert callable(factory)


def test_the_world_of_a_table_knows_its_names() -> None:
    import jax

    world = worlds.from_arrays(*table("gapminder"), standardise=True)(jax.random.key(0))
    assert world.columns == ("log_income", "log_population", "year")
    assert world.environments == ("Africa", "Americas", "Asia", "Europe", "Oceania")
    assert world.counts.tolist() == [624, 300, 396, 360, 24]


def test_quartiles_of_age_are_those_of_pandas_and_age_is_no_input() -> None:
    found = table("diabetes")
    from sklearn.datasets import load_diabetes

    age = load_diabetes(scaled=False, as_frame=True).data["age"]
    expected = pd.qcut(age, 4, labels=False) + 1
    np.testing.assert_array_equal(found.environment, expected)
    assert "age" not in found.x
    assert abs(np.corrcoef(found.x["s1"], found.x["s2"])[0, 1]) > 0.89


def test_public_capital_is_the_sum_of_its_parts() -> None:
    levels = np.exp(table("munnell").x)
    parts = levels["HWY"] + levels["WATER"] + levels["UTIL"]
    np.testing.assert_allclose(levels["P_CAP"], parts, rtol=1e-4)


def test_wages_by_year_are_the_same_rows() -> None:
    occupation, year = table("wage_panel"), table("wage_panel", "year")
    np.testing.assert_array_equal(occupation.x, year.x)
    assert sorted(np.unique(year.environment)) == list(range(1980, 1988))
    np.testing.assert_array_equal(occupation.x["expersq"], occupation.x["exper"] ** 2)
    with pytest.raises(ValueError, match=r"environment must be .*occupation.*'industry'"):
        data.wage_panel("industry")


@pytest.mark.parametrize("name", SIZES)
def test_a_missing_package_is_named_with_its_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = PACKAGES.get(name, "linearmodels")
    for module in [each for each in sys.modules if each.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"not installed: pip install 'causal_sgd\[data\]'"):
        getattr(data, name)()
