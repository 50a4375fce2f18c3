"""The mutants of `benchmarks/mutations.py` change functions that exist, by the stated factor."""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import pytest

from causal_sgd import studies, theory

mutations = pytest.importorskip("benchmarks.mutations")
mutants = pytest.importorskip("benchmarks.mutants")


@pytest.mark.parametrize("name", mutations.MUTANTS)
def test_a_mutant_changes_a_function_that_exists(name: str) -> None:
    mutant = mutations.MUTANTS[name]
    module, function = mutant.function.split(":")
    assert callable(mutant.change(getattr(importlib.import_module(module), function)))
    assert mutant.tests or mutant.studies
    assert all((mutations.ROOT / path).exists() for path in mutant.tests)
    assert set(mutant.studies) <= set(studies.NAMES)


def test_results_arguments_and_entries_are_changed() -> None:
    assert mutants.result()(lambda: 2.0)() == pytest.approx(2.1)
    assert mutants.argument("x", 2)(lambda *, x, y: (x, y))(x=1, y=1) == (2, 1)
    assert mutants.argument("x", 2)(lambda x, y=1: (x, y))(1) == (2, 1)
    shares = mutants.heavier("p")(lambda p: p)(np.array([0.2, 0.5, 0.3]))
    np.testing.assert_allclose(shares, [0.21, 0.5 * 0.79 / 0.8, 0.3 * 0.79 / 0.8])
    with pytest.raises(LookupError, match="must have the argument 'z'"):
        mutants.argument("z")(lambda *, x: x)
    changed = mutants.off_diagonal(lambda normals, dim: normals.reshape(dim, dim))
    np.testing.assert_allclose(changed(np.ones(4), 2), [[1, 1.05], [1.05, 1]])


def test_every_function_of_theory_has_a_mutant() -> None:
    public = {name for name in dir(theory) if inspect.isfunction(getattr(theory, name))}
    no_law = {"families", "is_bounded", "linearised", "order_parameters"}
    assert public - no_law <= set(mutants.MUTANTS)


def test_known_survivors_are_mutants() -> None:
    for key in mutations.SURVIVORS:
        name, _, what = key.rpartition(": ")
        assert what == "tests" or what in mutations.MUTANTS[name].studies, key
