"""Formulas are compared with definitions: see `quickly_compiled`."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(quickly_compiled: None) -> None:
    """Apply it to every module of this folder, so that they share what is compiled."""
