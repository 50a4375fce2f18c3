"""The mutants of `mutations.py`: functions of the package, how each is changed, what notices."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

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


def _theory(module: str, *names: str, studies: Mapping[str, tuple[str, ...]]) -> dict[str, Mutant]:
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


def _laws(
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


OF_THEORY = {
    "_batch_ratios": "tests/theory/test_theory_noise.py",
    "limits": "tests/theory/test_theory_limits.py",
    "_products": "tests/theory/test_theory_exponents.py",
    "_variances": "tests/theory/test_theory_finite_time.py",
}


RANDOM = ("tests/random",)
LAWS = ("tests/sensing/test_law.py", "tests/sensing/test_low_rank.py", "tests/random")
SAMPLERS = ("tests/training/test_samplers.py",)
MODELS = ("tests/sensing/test_models.py",)
WORLDS = ("tests/sensing/test_worlds.py",)
MEASUREMENTS = "causal_sgd.sensing.measurements"
MUTANTS: dict[str, Mutant] = {
    **_theory(
        "_batch_ratios",
        "annealing_window",
        "batch_critical_spread",
        "best_error",
        "divergence_batch_ratio",
        "retention_batch_ratio",
        studies=dict.fromkeys(
            ("batch_critical_spread", "divergence_batch_ratio", "retention_batch_ratio"),
            ("proportional-limit",),
        ),
    ),
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
        "lyapunov",
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
        studies={"finite_time_critical_spread": ("finite-time",)},
    ),
    **_theory(
        "_incremental",
        "incremental_level",
        "incremental_scale",
        "incremental_times",
        "invariant_first",
        "reversing_spread",
        studies={"incremental_times": ("incremental-learning",)},
    ),
    **_theory(
        "_methods",
        "federated_factors",
        "lyapunov_federated",
        "momentum_factors",
        "scaffold_factors",
        studies={"lyapunov_federated": ("federated",)},
    ),
    **_theory("_noise", "noise_level", studies={"noise_level": ("proportional-limit",)}),
    **_theory(
        "_overspecified",
        "balancing_spread",
        "overspecified_error",
        "overspecified_rate",
        "unbalanced_error",
        "unbalanced_floor",
        studies=dict.fromkeys(
            (
                "overspecified_error",
                "overspecified_rate",
                "unbalanced_error",
                "unbalanced_floor",
            ),
            ("over-specified-rank",),
        ),
    ),
    **_theory(
        "_preconditioning",
        "damping_window",
        studies={"damping_window": ("preconditioning",)},
    ),
    **_theory("_products", "lyapunov_exponents", studies={}),
    **_theory(
        "_rotations",
        "critical_spread_of",
        "lyapunov_goe",
        "lyapunov_haar",
        "top_exponent",
        studies={},
    ),
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
    **_theory("_statistical_dimension", "statistical_dimension", studies={}),
    **_laws(
        "_interpolators",
        "solvers",
        room="sparse",
        hyperbolic_interpolator=("heterogeneity-lasso", "label-noise-lasso"),
        l1_interpolator=(),
    ),
    **_laws("_dimension", "dimension", room="sparse", sparse_dimension=()),
    **_laws("_lasso", "solvers", room="sparse", weighted_lasso=("heterogeneity-lasso",)),
    **_laws(
        "_penalties",
        "penalties",
        room="sparse",
        gradient_variances=(),
        growth_exponents=(),
        heterogeneity_lasso=("heterogeneity-lasso",),
    ),
    **_laws("_two_features", "penalties", room="sparse", feature_thresholds=()),
    **_laws(
        "_sharpening",
        "sharpening",
        room="stability",
        sharpening_end=("progressive-sharpening",),
        flattening_time=("progressive-sharpening",),
    ),
    **_laws(
        "_sharpness_aware",
        "sharpness_aware",
        room="stability",
        sam_edge=("sam-edge",),
        sam_amplitude=("sam-edge",),
        sam_balance_exponent=("sam-edge",),
        sam_exponent=("sam-edge",),
        sam_floor=("sam-edge",),
    ),
    **_theory(
        "_tails",
        "tail_exponent",
        studies={"tail_exponent": ("tilt", "intermittency", "divergence", "proportional-limit")},
    ),
    **_theory("_variances", "log_variance", studies={}),
    **_theory("limits", "limit_step", "limit_trajectory", "order_statistics", studies={}),
    **_laws(
        "coloured_logistic",
        "losses",
        pooled=(),
        critical_learning_rate=("coloured-logistic",),
        largest_learning_rate=(),
    ),
    **_laws(
        "contradiction",
        "contradiction",
        erm=("contradiction",),
        vrex=("contradiction",),
        irmv1=("contradiction",),
        group_dro=("contradiction",),
        eills_threshold=(),
    ),
    **_laws(
        "environments_needed",
        "environments",
        gain_distribution=("environments-needed",),
        bayes_risk=(),
        flipped_error=(),
    ),
    **_laws("minority_groups", "losses", errors=("minority-groups",)),
    **_laws("mixtures", "environments", bayes_error=(), permuted_error=()),
    **_laws("separable", "losses", direction_gap=("separable",), scaled_loss=("separable",)),
    **_laws(
        "_features",
        "features",
        room="stability",
        oscillation_end=("benign-oscillation",),
        share_time=("benign-oscillation",),
        weak_exponent=("benign-oscillation",),
    ),
    **_laws("_saddle", "saddle", room="stability", saddle_spectrum=("where-it-sits",)),
    **_laws(
        "_gain",
        "gain",
        room="sparse",
        effective_scale=(),
        first_gain=(),
        gain_per_step=("diagonal-networks",),
    ),
    **_laws("two_bit", "two_bit", feasible_points=(), critical_correlation=("two-bit",)),
    **{
        f"{law} of linear_dynamics": Mutant(
            f"causal_sgd.theory.linear_dynamics:{law}",
            result(),
            ("tests/theory/test_theory_linear_dynamics.py",),
            studies,
        )
        for law, studies in {
            "accuracy": (),
            "critical_ratio": (),
            "grokking_times": ("grokking-linear",),
            "late_gap": (),
            "loss_at": (),
            "losses": (),
            "spectrum": (),
            "vanishing_spread": ("grokking-linear",),
        }.items()
    },
    **{
        f"{law} of single_index": Mutant(
            f"causal_sgd.theory.single_index:{law}",
            result(),
            ("tests/theory/test_theory_single_index.py",),
            studies,
        )
        for law, studies in {
            "learning_time": (),
            "link_moments": (),
            "noise_level": (),
            "rejecting_learning_rate": (),
            "stopped_error": (),
            "stopped_weights": ("single-index",),
        }.items()
    },
    "normals": Mutant("causal_sgd.random._normal:normals", result(), RANDOM),
    "normals by regions": Mutant("causal_sgd.random._normal:normal_regions", result(), RANDOM),
    "uniforms": Mutant("causal_sgd.random._bits:uniforms", result(0.95), RANDOM),
    "counts of binomials": Mutant(
        "causal_sgd.random._discrete:binomial", argument("share", 0.95), RANDOM
    ),
    "counts of multinomials": Mutant(
        "causal_sgd.random._discrete:multinomial", heavier("probabilities"), RANDOM
    ),
    "GOE": Mutant("causal_sgd.random._normal:goe", off_diagonal, RANDOM),
    "GOE off its diagonal": Mutant(
        "causal_sgd.random._normal:goe_summand", off_diagonal, LAWS, ("heterogeneity",)
    ),
    "chi-square": Mutant("causal_sgd.random._normal:chi_square", result(), LAWS),
    "degrees of chi-square": Mutant(
        "causal_sgd.random._normal:chi_square", argument("degrees"), LAWS
    ),
    "label noise": Mutant(
        f"{MEASUREMENTS}._gaussian:gaussian_law", argument("noise"), LAWS, ("label-noise",)
    ),
    **{
        f"label noise of {name}": Mutant(
            f"{MEASUREMENTS}.{module}:{name}",
            argument("noise"),
            (f"tests/sensing/test_{tests}.py",),
        )
        for name, module, tests in (
            ("completion", "_entries", "structured"),
            ("examples", "_networks", "structured"),
            ("fixed_design", "_fixed", "designs"),
            ("in_context", "_in_context", "in_context"),
            ("in_context_population", "_in_context", "in_context"),
            ("low_rank_law", "_low_rank", "low_rank"),
            ("order_parameter_law", "_order_parameters", "order_parameters"),
            ("rank_one", "_networks", "structured"),
            ("streamed", "_gaussian", "law"),
        )
    },
    **{
        f"{name} of attention": Mutant(
            f"causal_sgd.theory.attention:{name}",
            result(),
            ("tests/theory/test_theory_attention.py",),
            judged,
        )
        for name, judged in (
            ("critical_spread", ("in-context",)),
            ("exponent", ()),
            ("growth", ()),
            ("optimum", ("in-context",)),
        )
    },
    "choice of environments": Mutant(
        "causal_sgd.training.samplers:_choose", heavier("probabilities"), SAMPLERS
    ),
    "probabilities of pooled counts": Mutant(
        "causal_sgd.random._discrete:multinomial", heavier("probabilities"), SAMPLERS
    ),
    "length of blocks": Mutant(
        "causal_sgd.training.samplers:block", replaced("length", lambda n: n + 1), SAMPLERS
    ),
    "stay of the sticky order": Mutant(
        "causal_sgd.training.samplers:sticky", argument("stay"), SAMPLERS, ("orders",)
    ),
    **{
        f"{name} of {evolution}": Mutant(
            f"causal_sgd.sensing.nonstationary:{evolution}",
            argument(name, factor),
            ("tests/sensing/test_nonstationary.py",),
        )
        for evolution, name, factor in (
            ("drift", "rate", PER_CENT),
            ("redraw", "probability", 0.95),
            ("rotate", "angle", PER_CENT),
        )
    },
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
        f"{name} of {family}": Mutant(
            f"causal_sgd.sensing.worlds._families:{family}",
            argument(name),
            WORLDS,
            studies.get(family, ()) if name == "spread" else (),
        )
        for studies in ({"two_point": ("phase-diagram",), "uniform": ("collapse",)},)
        for family in ("two_point", "uniform", "gaussian", "log_normal", "goe", "from_quantile")
        for name in ("mean", "spread")
    },
    "eigenvalues of discrete": Mutant(
        "causal_sgd.sensing.worlds._families:discrete", argument("eigenvalues"), WORLDS
    ),
    **{
        f"{function} of a diagnosis": Mutant(
            f"causal_sgd.experiment.diagnosis.{module}:{function}",
            change,
            (f"tests/experiment/test_diagnosis{tests}.py",),
        )
        for module, function, change, tests in (
            ("_products", "exponents_of", argument("rate"), ""),
            ("_products", "rejecting_steps", result(), ""),
            ("_products", "with_errors", result(2.0), ""),
            ("_growth", "_disturbances", result(), ""),
            ("_growth", "_across", result(10.0), ""),
            ("_report", "_left_out", result(), "_report"),
            ("_report", "_path", argument("rates", 2.0), "_report"),
            ("_report", "_stable", result(3.0), "_report"),
        )
    },
    "coupling of goe": Mutant(
        "causal_sgd.sensing.worlds._families:goe", argument("coupling"), WORLDS
    ),
}
SURVIVORS: dict[str, str] = {
    **{
        f"{law} of separable: separable": "5 % are the width of the interval, .95 to 1.05; errors "
        "of 6 % would be noticed"
        for law in ("direction_gap", "scaled_loss")
    },
    "divergence_batch_ratio: proportional-limit": "15 of 16 runs diverge at 1.05 of the ratio; "
    "errors of -13 % and +15 % would be noticed",
    "tail_exponent: proportional-limit": "5 % of kappa/2 are 0.012 in an interval of +-0.05; "
    "errors of -16 % and +28 % would be noticed",
}
"""Mutant and what does not notice it, as "error_floor: heterogeneity" -> why."""
