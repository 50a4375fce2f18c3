"""What the mutants of `mutations.py` are, and how they change a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "PER_CENT",
    "Mutant",
    "argument",
    "heavier",
    "laws",
    "of_result",
    "of_theory",
    "off_diagonal",
    "replaced",
    "result",
]

PER_CENT = 1.05


class Mutant(NamedTuple):
    """A function of the package, its change, and what should notice."""

    function: str  # the module that defines it, and its name
    change: Callable[[Callable[..., Any]], Callable[..., Any]]
    tests: tuple[str, ...] = ()  # files and expressions of pytest, by place of the function
    studies: tuple[str, ...] = ()  # about the law that it changes


def result(factor: float = PER_CENT) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Multiply all numbers that a function returns."""

    def multiplied(found: Any) -> Any:
        import jax

        return jax.tree.map(lambda leaf: leaf * factor, found)

    return of_result(multiplied)


def of_result(new: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace what a function returns."""

    def change(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def changed(*args: Any, **kwargs: Any) -> Any:
            return new(function(*args, **kwargs))

        return changed

    return change


def argument(
    name: str, factor: float = PER_CENT
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Multiply an argument that is given, by name or place."""
    return replaced(name, lambda value: value * factor)


def heavier(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Multiply the first of some probabilities; the others take what is left."""

    def change(probabilities: Any) -> Any:
        import jax.numpy as jnp

        if len(probabilities) == 1:
            return probabilities
        rest = (1 - PER_CENT * probabilities[:1]) / (1 - probabilities[:1])
        return jnp.where(jnp.arange(len(probabilities)) == 0, PER_CENT, rest) * probabilities

    return replaced(name, change)


def replaced(
    name: str, new: Callable[[Any], Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function another value of an argument, unless it is left out or None."""

    def change(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        if name not in signature.parameters:
            raise LookupError(f"{function.__name__} must have the argument {name!r}")

        @functools.wraps(function)
        def changed(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            if given.arguments.get(name) is not None:
                given.arguments[name] = new(given.arguments[name])
            return function(*given.args, **given.kwargs)

        return changed

    return change


def off_diagonal(function: Callable[..., Any]) -> Callable[..., Any]:
    """Multiply a square matrix outside its diagonal."""

    @functools.wraps(function)
    def changed(normals: Any, dim: int) -> Any:
        return function(normals, dim) * np.where(np.eye(dim, dtype=bool), 1, PER_CENT)

    return changed


OF_THEORY = {
    "_environments": "tests/theory/test_theory_accuracy.py",
    "_momentum": "tests/theory/test_theory_methods.py",
    "_batch_ratios": "tests/theory/test_theory_noise.py",
    "limits": "tests/theory/test_theory_limits.py",
    "_products": "tests/theory/test_theory_exponents.py",
    "_variances": "tests/theory/test_theory_finite_time.py",
}


def of_theory(
    module: str, *names: str, studies: Mapping[str, tuple[str, ...]]
) -> dict[str, Mutant]:
    """The functions of a module of theory whose results are numbers."""
    tests = OF_THEORY.get(module, f"tests/theory/test_theory{module}.py")
    return {
        name: Mutant(
            f"causal_sgd.theory:{name}",
            result(),
            (tests, "tests/theory"),  # the second only if the first does not notice
            studies.get(name, ()),
        )
        for name in names
    }


def laws(
    module: str, tests: str, *, room: str = "invariance", **laws: tuple[str, ...]
) -> dict[str, Mutant]:
    """The functions of a module of a room of `theory`, and the studies that judge them."""
    return {
        f"{name} of {module}": Mutant(
            f"causal_sgd.theory.{room}.{module}:{name}",
            result(),
            (f"tests/theory/test_theory_{room}_{tests}.py",),
            judged,
        )
        for name, judged in laws.items()
    }
