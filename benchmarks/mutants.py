"""The mutants of `mutations.py`: functions of the package, how each is changed, what notices."""

from __future__ import annotations

from benchmarks.mutant_changes import (
    PER_CENT,
    Mutant,
    argument,
    heavier,
    laws,
    of_theory,
    off_diagonal,
    replaced,
    result,
)
from benchmarks.mutants_of_networks import NETWORKS

__all__ = ["MUTANTS", "SURVIVORS"]


RANDOM = ("tests/random",)
LAWS = ("tests/sensing/test_law.py", "tests/sensing/test_low_rank.py", "tests/random")
SAMPLERS = ("tests/training/test_samplers.py",)
MODELS = ("tests/sensing/test_models.py",)
WORLDS = ("tests/sensing/test_worlds.py",)
MEASUREMENTS = "causal_sgd.sensing.measurements"
MUTANTS: dict[str, Mutant] = {
    **of_theory(
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
    **of_theory(
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
    **of_theory(
        "_depth",
        "crossing_spread",
        "deep_spurious_quantile",
        studies={"crossing_spread": ("depth",), "deep_spurious_quantile": ("depth",)},
    ),
    **of_theory(
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
    **of_theory(
        "_finite_time",
        "finite_time_critical_spread",
        "finite_time_rejection",
        studies={"finite_time_critical_spread": ("finite-time",)},
    ),
    **of_theory(
        "_incremental",
        "incremental_level",
        "incremental_scale",
        "incremental_times",
        "invariant_first",
        "reversing_spread",
        studies={"incremental_times": ("incremental-learning",)},
    ),
    **of_theory(
        "_methods",
        "federated_factors",
        "lyapunov_federated",
        "momentum_factors",
        "scaffold_factors",
        studies={"lyapunov_federated": ("federated",)},
    ),
    **of_theory(
        "_environments",
        "critical_learning_rate_environments",
        "critical_spread_environments",
        studies={},
    ),
    **of_theory("_momentum", "lyapunov_momentum", "momentum_critical_spread", studies={}),
    **of_theory("_noise", "noise_level", studies={"noise_level": ("proportional-limit",)}),
    **of_theory(
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
    **of_theory(
        "_preconditioning",
        "damping_window",
        studies={"damping_window": ("preconditioning",)},
    ),
    **of_theory("_products", "lyapunov_exponents", studies={}),
    **of_theory(
        "_rotations",
        "critical_spread_of",
        "lyapunov_goe",
        "lyapunov_haar",
        "top_exponent",
        studies={},
    ),
    **of_theory(
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
    **of_theory("_statistical_dimension", "statistical_dimension", studies={}),
    **laws(
        "_interpolators",
        "solvers",
        room="sparse",
        hyperbolic_interpolator=("heterogeneity-lasso", "label-noise-lasso"),
        l1_interpolator=(),
    ),
    **laws("_dimension", "dimension", room="sparse", sparse_dimension=()),
    **laws("_lasso", "solvers", room="sparse", weighted_lasso=("heterogeneity-lasso",)),
    **laws(
        "_penalties",
        "penalties",
        room="sparse",
        gradient_variances=(),
        growth_exponents=(),
        heterogeneity_lasso=("heterogeneity-lasso",),
    ),
    **laws("_two_features", "penalties", room="sparse", feature_thresholds=()),
    **laws(
        "_sharpening",
        "sharpening",
        room="stability",
        sharpening_end=("progressive-sharpening",),
        flattening_time=("progressive-sharpening",),
    ),
    **laws(
        "_sharpness_aware",
        "sharpness_aware",
        room="stability",
        sam_edge=("sam-edge",),
        sam_amplitude=("sam-edge",),
        sam_balance_exponent=("sam-edge",),
        sam_exponent=("sam-edge",),
        sam_floor=("sam-edge",),
    ),
    **of_theory(
        "_tails",
        "tail_exponent",
        studies={"tail_exponent": ("tilt", "intermittency", "divergence", "proportional-limit")},
    ),
    **of_theory("_variances", "log_variance", studies={}),
    **of_theory("limits", "limit_step", "limit_trajectory", "order_statistics", studies={}),
    **laws(
        "coloured_logistic",
        "losses",
        pooled=(),
        critical_learning_rate=("coloured-logistic",),
        largest_learning_rate=(),
    ),
    **laws(
        "contradiction",
        "contradiction",
        erm=("contradiction",),
        vrex=("contradiction",),
        irmv1=("contradiction",),
        group_dro=("contradiction",),
        eills_threshold=(),
    ),
    **laws(
        "environments_needed",
        "environments",
        gain_distribution=("environments-needed",),
        bayes_risk=(),
        flipped_error=(),
    ),
    **laws("minority_groups", "losses", errors=("minority-groups",)),
    **laws("mixtures", "environments", bayes_error=(), permuted_error=()),
    **laws("separable", "losses", direction_gap=("separable",), scaled_loss=("separable",)),
    **laws(
        "_features",
        "features",
        room="stability",
        oscillation_end=("benign-oscillation",),
        share_time=("benign-oscillation",),
        weak_exponent=("benign-oscillation",),
    ),
    **laws("_saddle", "saddle", room="stability", saddle_spectrum=("where-it-sits",)),
    **laws(
        "_gain",
        "gain",
        room="sparse",
        effective_scale=(),
        first_gain=(),
        gain_per_step=("diagonal-networks",),
    ),
    **laws("two_bit", "two_bit", feasible_points=(), critical_correlation=("two-bit",)),
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
    "coupling of goe": Mutant(
        "causal_sgd.sensing.worlds._families:goe", argument("coupling"), WORLDS
    ),
    **NETWORKS,
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
