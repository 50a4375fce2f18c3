"""Cases of one kind, of which the default run needs a few."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], quick: Container[Any]) -> list[Any]:
    """All cases as parameters; those that are not `quick` are slow tests."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in quick else pytest.mark.slow,
        )
        for case in cases
    ]
