"""Change laws by some per cent, and list the tests and studies that notice.

Run `python benchmarks/mutations.py` for all mutants, or with some of their names; `--list` lists
them. Each mutant multiplies the result or an argument of one function, in a process of its own. A
test of its room must fail, and a claim of each study about its law. With `--tests` or `--studies`
only one of both is run. All mutants take hours on two cores and are no part of continuous
integration. The exit status is 1 if a mutant survives that is not in `SURVIVORS`, which says why.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
PER_CENT = 1.05


class Mutant(NamedTuple):
    """A function of the package, its change, and what should notice."""

    function: str  # the module that defines it, and its name
    change: Callable[[Callable[..., Any]], Callable[..., Any]]
    tests: tuple[str, ...] = ()  # files and expressions of pytest, by place of the function
    studies: tuple[str, ...] = ()  # about the law that it changes


def result(factor: float = PER_CENT) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Multiply all numbers that a function returns."""

    def change(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def changed(*args: Any, **kwargs: Any) -> Any:
            import jax

            return jax.tree.map(lambda leaf: leaf * factor, function(*args, **kwargs))

        return changed

    return change


def argument(
    name: str, factor: float = PER_CENT
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Multiply an argument that is given by its name."""

    def change(function: Callable[..., Any]) -> Callable[..., Any]:
        if name not in inspect.signature(function).parameters:
            raise LookupError(f"{function.__name__} must have the argument {name!r}")

        @functools.wraps(function)
        def changed(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get(name) is not None:
                kwargs[name] = kwargs[name] * factor
            return function(*args, **kwargs)

        return changed

    return change


def off_diagonal(function: Callable[..., Any]) -> Callable[..., Any]:
    """Multiply a square matrix outside its diagonal."""

    @functools.wraps(function)
    def changed(normals: Any, dim: int) -> Any:
        return function(normals, dim) * np.where(np.eye(dim, dtype=bool), 1, PER_CENT)

    return changed


def _theory(module: str, *names: str, studies: Mapping[str, tuple[str, ...]]) -> dict[str, Mutant]:
    """The functions of a module of theory whose results are numbers."""
    return {
        name: Mutant(
            f"causal_sgd.theory.{module}:{name}", result(), ("tests/theory",), studies.get(name, ())
        )
        for name in names
    }


LAWS = ("tests/sensing/test_law.py", "tests/sensing/test_low_rank.py", "tests/random")
SAMPLERS = ("tests/training/test_samplers.py",)
MODELS = ("tests/sensing/test_models.py",)
WORLDS = ("tests/sensing/test_worlds.py",)
MEASUREMENTS = "causal_sgd.sensing.measurements"
MUTANTS: dict[str, Mutant] = {
    **_theory(
        "_boundaries",
        "critical_learning_rate",
        "critical_learning_rate_asymmetric",
        "critical_mass",
        "critical_spread",
        "divergence_bound",
        "least_positive_exponent",
        "mixing_critical_spread",
        studies={
            "critical_mass": ("outliers",),
            "critical_spread": ("phase-diagram",),
            "divergence_bound": ("divergence",),
            "least_positive_exponent": ("positive-spectra",),
            "mixing_critical_spread": ("mixing",),
        },
    ),
    **_theory(
        "_depth",
        "crossing_spread",
        "deep_spurious_quantile",
        studies={"crossing_spread": ("depth",), "deep_spurious_quantile": ("depth",)},
    ),
    **_theory(
        "_exponents",
        "log_variance_environments",
        "log_variance_two_point",
        "lyapunov_asymmetric",
        "lyapunov_environments",
        "lyapunov_gaussian",
        "lyapunov_log_normal",
        "lyapunov_two_point",
        "lyapunov_uniform",
        studies={"lyapunov_log_normal": ("positive-spectra",)},
    ),
    **_theory(
        "_finite_time",
        "finite_time_critical_spread",
        "finite_time_rejection",
        "log_variance",
        studies={"finite_time_critical_spread": ("finite-time",)},
    ),
    **_theory("_methods", "lyapunov_federated", studies={"lyapunov_federated": ("federated",)}),
    **_theory("_rotations", "lyapunov_goe", "lyapunov_haar", studies={}),
    **_theory(
        "_stationary",
        "complement_power",
        "error_floor",
        "expected_error",
        "finite_data_error",
        "growth_time",
        "optimal_spread",
        "stationary_spurious_moments",
        studies={
            "complement_power": ("over-parameterisation",),
            "error_floor": ("heterogeneity", "small-batch", "label-noise", "high-dimension"),
            "finite_data_error": ("finite-data",),
            "growth_time": ("over-parameterisation",),
        },
    ),
    **_theory(
        "_tails",
        "tail_exponent",
        studies={"tail_exponent": ("tilt", "intermittency", "divergence")},
    ),
    "GOE off its diagonal": Mutant(
        "causal_sgd.random._normal:goe_summand", off_diagonal, LAWS, ("heterogeneity",)
    ),
    "chi-square": Mutant("causal_sgd.random._normal:chi_square", result(), LAWS),
    "label noise": Mutant(
        f"{MEASUREMENTS}._gaussian:gaussian_law", argument("noise"), LAWS, ("label-noise",)
    ),
    "label noise of the low-rank law": Mutant(
        f"{MEASUREMENTS}._low_rank:low_rank_law", argument("noise"), LAWS, ()
    ),
    "stay of the sticky order": Mutant(
        "causal_sgd.training.samplers:sticky", argument("stay"), SAMPLERS, ("orders",)
    ),
    "share of drift": Mutant(
        "causal_sgd.sensing.nonstationary:drift",
        argument("rate"),
        ("tests/sensing/test_nonstationary.py",),
    ),
    **{
        f"start of {name}": Mutant(
            f"causal_sgd.sensing.models.{module}:{name}", argument("init_scale", 1.1), MODELS
        )
        for module, names in {
            "_matrices": ("factored", "asymmetric", "deep", "diagonal", "signed_diagonal"),
            "_networks": ("quadratic", "relu"),
        }.items()
        for name in names
    },
    **{
        f"spread of {name}": Mutant(
            f"causal_sgd.sensing.worlds._families:{name}", argument("spread"), WORLDS, studies
        )
        for name, studies in {
            "two_point": ("phase-diagram",),
            "uniform": ("collapse",),
            "gaussian": ("collapse",),
        }.items()
    },
}
SURVIVORS: dict[str, str] = {
    "crossing_spread: depth": "brackets the crossing by 0.85 and 1.1 of it",
    "deep_spurious_quantile: depth": "the stationary density is a small-step limit, good to 25 %",
    "finite_data_error: finite-data": "first order in 1/n; at the study's n off by 3 to 12 %",
    "tail_exponent: intermittency": "its standard error is 2 % at best; `tilt` notices",
    "tail_exponent: divergence": "a slope from few losses, good to 25 %; `tilt` notices",
}
"""Mutant and what does not notice it, as "error_floor: heterogeneity" -> why."""

_CHILD = """
import sys
sys.path.insert(0, {root!r})
from benchmarks import mutations
sys.exit(mutations.{check}({name!r}, *{what!r}))
"""


def apply(name: str) -> None:
    """Change the function of a mutant, before other modules of the package import it.

    Raises:
        LookupError: if the package has no such function any more.
    """
    mutant = MUTANTS[name]
    place, function = mutant.function.split(":")
    module = importlib.import_module(place)
    original = getattr(module, function, None)
    if original is None:
        raise LookupError(f"{place} must define {function}, which the mutant {name!r} changes")
    changed = mutant.change(original)
    for holder in [one for key, one in sys.modules.items() if key.startswith("causal_sgd")]:
        if vars(holder).get(function) is original:
            setattr(holder, function, changed)


def run_tests(name: str, *paths: str) -> int:
    """Run tests on a mutant; the status of pytest."""
    import pytest

    apply(name)
    return int(
        pytest.main(["-q", "-x", "-n", "0", "--no-header", "-p", "no:cacheprovider", *paths])
    )


def run_study(name: str, study: str) -> int:
    """Run a study on a mutant; 1 if a claim fails."""
    import causal_sgd

    causal_sgd.use_cpu_cores()
    apply(name)
    from causal_sgd import studies

    module = studies.load(study)
    failed = [
        one.claim.text
        for one in studies.verdicts(module, module.run(quick=False, key=0, progress=False))
        if one.holds is False
    ]
    print("\n".join(f"claim: {text}" for text in failed))
    return 1 if failed else 0


def killers(name: str, *, tests: bool, studies: bool) -> dict[str, str | None]:
    """What notices a mutant: "tests" and every study about its law -> the first failure or None."""
    mutant = MUTANTS[name]
    noticed: dict[str, str | None] = {}
    if tests and mutant.tests:
        noticed["tests"] = next(
            filter(None, (_failure("run_tests", name, one) for one in mutant.tests)), None
        )
    if studies:
        noticed |= {one: _failure("run_study", name, one) for one in mutant.studies}
    return noticed


def _failure(check: str, name: str, what: str) -> str | None:
    """The first failure that a mutant causes in a test file or study, None without one."""
    script = _CHILD.format(root=str(ROOT), check=check, name=name, what=(what,))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{name}, {what}: {(done.stdout + done.stderr)[-2000:]}")
    if not done.returncode:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "claim: "))]
    if not lines:
        raise RuntimeError(f"{name}, {what}: {(done.stdout + done.stderr)[-2000:]}")
    return lines[0].removeprefix("FAILED ").removeprefix("claim: ").split(" - ")[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mutants, print a table and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="MUTANT", help="see --list; all by default")
    parser.add_argument("--list", action="store_true", help="list the mutants and run none")
    parser.add_argument("--tests", action="store_true", help="run tests only")
    parser.add_argument("--studies", action="store_true", help="run studies only")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in MUTANTS]
    if unknown:
        parser.error(f"mutants must be of {', '.join(MUTANTS)}, got {unknown[0]!r}")
    names = options.names or list(MUTANTS)
    if options.list:
        print("\n".join(names))
        return 0
    print("| mutant | noticed by | first failure | seconds |\n|---|---|---|---|", flush=True)
    new = []
    for name in names:
        start = time.perf_counter()
        both = options.tests == options.studies
        noticed = killers(name, tests=options.tests or both, studies=options.studies or both)
        for what, failure in noticed.items():
            key = f"{name}: {what}"
            if failure is None and key not in SURVIVORS:
                new.append(key)
            text = failure or f"**survives**: {SURVIVORS.get(key, 'new')}"
            print(f"| {name} | {what} | {text} | {time.perf_counter() - start:.0f} |", flush=True)
    print(f"\n{len(new)} new survivors" + (f": {', '.join(new)}" if new else ""))
    return 1 if new else 0


if __name__ == "__main__":
    raise SystemExit(main())
