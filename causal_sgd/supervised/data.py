"""Tables with environments that come with other packages; nothing is downloaded.

Each function reads one table, takes logarithms where economists do, and returns a `Table`, which is
what `worlds.from_arrays(*table)` takes. The packages are those of the extra `data`. Columns keep
their units: use `standardise=True` there.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd

from causal_sgd import _room, checks

_room(__name__)
__all__ = ["Table", "diabetes", "gapminder", "grunfeld", "munnell", "wage_panel"]


class Table(NamedTuple):
    """Rows of a table."""

    x: pd.DataFrame  # [N, p] inputs
    y: np.ndarray  # [N] labels
    environment: np.ndarray  # [N] name of the environment of every row


def diabetes() -> Table:
    """Progression of diabetes after a year, by quartile of age (Efron et al. 2004).

    442 patients, nine inputs (sex, body mass index, blood pressure, six blood serum measurements,
    of which s1, s2 and s3 are almost collinear); environments 1 to 4 from young to old. Age makes
    the environments and is no input.

    Raises:
        ImportError: without scikit-learn.
    """
    found = _module("sklearn.datasets", "scikit-learn").load_diabetes(scaled=False, as_frame=True)
    age = found.data["age"].to_numpy()
    # As `pandas.qcut`: a quartile holds its upper end.
    quartile = 1 + np.searchsorted(np.quantile(age, [0.25, 0.5, 0.75]), age, side="left")
    return Table(found.data.drop(columns="age"), found.target.to_numpy(float), quartile)


def munnell() -> Table:
    """Output of American states, 1970 to 1986, by state (Munnell 1990).

    816 rows in 48 environments. The label is the logarithm of the gross state product; inputs are
    those of public capital (P_CAP) and of its parts, which sum to it (HWY, WATER, UTIL), of private
    capital (PC) and of employment (EMP), and the rate of unemployment (UNEMP).

    Raises:
        ImportError: without linearmodels.
    """
    rows = _module("linearmodels.datasets.munnell", "linearmodels").load()
    logs = np.log(rows[["P_CAP", "HWY", "WATER", "UTIL", "PC", "EMP"]])
    inputs = logs.assign(UNEMP=rows["UNEMP"])
    return Table(inputs, np.log(rows["GSP"].to_numpy(float)), rows["STATE"].to_numpy(str))


def wage_panel(environment: str = "occupation") -> Table:
    """Logarithms of wages of young men, 1980 to 1987 (Vella and Verbeek 1998).

    4,360 rows of 545 men: experience and its square, education, race, marriage, union membership
    and hours of work.

    Args:
        environment: "occupation" for nine environments, or "year" for eight.

    Raises:
        ValueError: for another environment.
        ImportError: without linearmodels.
    """
    checks.choice("environment", environment, ("occupation", "year"))
    rows = _module("linearmodels.datasets.wage_panel", "linearmodels").load()
    names = ["exper", "expersq", "educ", "black", "hisp", "married", "union", "hours"]
    owners = rows[environment].to_numpy(int)
    return Table(rows[names].astype(float), rows["lwage"].to_numpy(float), owners)


def gapminder() -> Table:
    """Life expectancy of countries, 1952 to 2007, by continent (Gapminder).

    1,704 rows in five environments, of unequal sizes. Inputs are the logarithms of income a head
    and of the population, and the year.

    Raises:
        ImportError: without causaldata.
    """
    rows = _module("causaldata", "causaldata").gapminder.load_pandas().data
    inputs = pd.DataFrame(
        {
            "log_income": np.log(rows["gdpPercap"].to_numpy(float)),
            "log_population": np.log(rows["pop"].to_numpy(float)),
            "year": rows["year"].to_numpy(float),
        }
    )
    return Table(inputs, rows["lifeExp"].to_numpy(float), rows["continent"].to_numpy(str))


def grunfeld() -> Table:
    """Investment of American firms, 1935 to 1954, by firm (Grunfeld 1958).

    220 rows of eleven firms: the value of the firm and its stock of capital.

    Raises:
        ImportError: without statsmodels, which linearmodels requires.
    """
    rows = _module("statsmodels.datasets.grunfeld", "statsmodels").load_pandas().data
    labels = rows["invest"].to_numpy(float)
    return Table(rows[["value", "capital"]].astype(float), labels, rows["firm"].to_numpy(str))


def _module(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this table comes with {package}, which is not installed: "
            "pip install 'causal_sgd[data]'"
        ) from error
