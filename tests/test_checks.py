"""The checks of arguments that all rooms share."""

import jax
import numpy as np
import pytest

from causal_sgd import checks

FLOAT = (
    "rate must be 0 or from 1.2e-38 to 3.4e\\+38 in magnitude, the normal range of float32, got "
)
INTEGER = "rate must be from -2147483648 to 2147483647, the range of int32, .* got "


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e-50, FLOAT + "1e-50"),
        (-3e-45, FLOAT + "-3e-45"),
        (1e39, FLOAT + "1e\\+39"),
        (np.array([0.1, 1e-39]), FLOAT + "1e-39"),
        (np.float32(1e-40), FLOAT + "9.99995e-41"),
        (2**31, INTEGER + "2147483648"),
        (-(2**31) - 1, INTEGER + "-2147483649"),
        (10**30, INTEGER + "1" + "0" * 30),
        ([1, 2**31], INTEGER + "2147483648"),
        (np.array([10**9, 3 * 10**9]), INTEGER + "3000000000"),
        (np.uint32(2**32 - 1), INTEGER + "4294967295"),
    ],
)
def test_numbers_that_do_not_fit_their_type_are_refused(value, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checks.representable("rate", value)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.2e-38, -3.4e38, 2**31 - 1, -(2**31), True, [0.5, 0.0], np.inf, np.nan]
)
def test_numbers_that_fit_pass_as_they_are(value) -> None:
    assert checks.representable("rate", value) is value


def test_the_limits_are_those_of_64_bits_with_x64() -> None:
    with jax.enable_x64(True):
        assert checks.representable("rate", 1e-50) == 1e-50
        assert checks.representable("rate", 2**62) == 2**62
        with pytest.raises(ValueError, match="the normal range of float64, got 1e-310"):
            checks.representable("rate", 1e-310)
        with pytest.raises(ValueError, match="the range of int64"):
            checks.representable("rate", 2**63)
