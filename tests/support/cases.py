"""Cases of one kind, of which the default run needs a few."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def few(
    cases: Iterable[Any], quick: Container[Any], slow: Container[Any] | None = None
) -> list[Any]:
    """All cases as parameters; those that are not `quick` are slow tests.

    With `slow`, those that are in neither are long tests.
    """

    def marks(case: Any) -> list[pytest.MarkDecorator]:
        if case in quick:
            return []
        if slow is None or case in slow:
            return [pytest.mark.slow]
        return [pytest.mark.slow, pytest.mark.long]

    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks(case))
        for case in cases
    ]
