"""Mutants of a user's own environments and networks, see `mutants.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.mutant_changes import Mutant, argument, of_result, replaced, result

__all__ = ["NETWORKS"]

SUPERVISED = "causal_sgd.supervised"
OWN, SLOTS, GATES, DIGITS, ADAPTERS, NETS = (
    f"tests/supervised/test_{name}.py"
    for name in (
        "own_environments",
        "batch_slots",
        "input_gates",
        "supervised_worlds_digits",
        "network_adapters",
        "networks",
    )
)


def _next_environment(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A function that draws an environment too far."""
    return lambda key, environment, n: draw(key, environment + 1, n)


def _one_place_back(slots: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """Slots of which the first two hold the same example."""
    owners, offsets, own = slots
    return owners, offsets - (offsets > 0), own


def _without_last(slots: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """Slots of which no environment has the last."""
    owners, offsets, own = slots
    return owners, offsets, own.at[:, -1].set(False)


def _never(exceeded: Any) -> Any:
    return exceeded & False


def _exchanged(pair: tuple[Any, tuple[Any, Any]]) -> tuple[Any, tuple[Any, Any]]:
    """Both settings of a shortcut in the other order."""
    rows, (first, second) = pair
    return rows, (second, first)


def _same(pair: tuple[Any, tuple[Any, Any]]) -> tuple[Any, tuple[Any, Any]]:
    """One setting of a shortcut twice."""
    rows, (first, _) = pair
    return rows, (first, first)


NETWORKS: dict[str, Mutant] = {
    "environments of from_draws": Mutant(
        f"{SUPERVISED}.worlds._from_draws:from_draws", replaced("draw", _next_environment), (OWN,)
    ),
    "probabilities of given environments": Mutant(
        f"{SUPERVISED}.worlds._placement:weights_of", result(), (OWN,)
    ),
    "units of rows of the test": Mutant(
        f"{SUPERVISED}.worlds._validation:_standardised",
        argument("rows", 0),
        ("tests/supervised/test_supervised_worlds_data.py",),
    ),
    "places in slots": Mutant(
        f"{SUPERVISED}.measurements._choosing:_slots", of_result(_one_place_back), (SLOTS,)
    ),
    "owners of slots": Mutant(
        f"{SUPERVISED}.measurements._choosing:_slots", of_result(_without_last), (SLOTS,)
    ),
    "room in slots": Mutant(
        f"{SUPERVISED}.measurements._choosing:_exceeded", of_result(_never), (SLOTS,)
    ),
    "start of input gates": Mutant(
        f"{SUPERVISED}.models._input_gates:input_gates", argument("start"), (GATES,)
    ),
    "factors of input gates": Mutant(
        f"{SUPERVISED}.models._factors:with_factors", argument("factors"), (GATES,)
    ),
    "factors in first matrices": Mutant(
        f"{SUPERVISED}.models._factors:_evaluated", argument("factors"), (GATES,)
    ),
    "which networks take factors": Mutant(
        f"{SUPERVISED}.models._factors:_multiplies", of_result(_never), (GATES,)
    ),
    "step of gates": Mutant(
        "causal_sgd.training._gates:gates", argument("learning_rate"), (GATES,)
    ),
    "cap of gates": Mutant("causal_sgd.training._gates:gates", argument("cap", 0.95), (GATES,)),
    "relative cap": Mutant(
        "causal_sgd.training._gates:relative_cap", argument("cap", 0.95), (GATES,)
    ),
    "prediction of a network": Mutant(
        f"{SUPERVISED}.models._any_network:prediction", result(), (NETS, ADAPTERS)
    ),
    **{
        f"metric {name}": Mutant(f"{SUPERVISED}.metrics.{module}:{name}", result(), (OWN,))
        for module, names in {
            "_accuracies": (
                "accuracy",
                "accuracies",
                "worst_accuracy",
                "training_accuracy",
                "training_accuracies",
            ),
            "_risks": ("environment_losses", "test_losses"),
        }.items()
        for name in names
    },
    "metric reliance": Mutant(
        f"{SUPERVISED}.metrics._accuracies:_both_ways", of_result(_exchanged), (OWN,)
    ),
    "metric flip_accuracy": Mutant(
        f"{SUPERVISED}.metrics._accuracies:_both_ways", of_result(_same), (f"{OWN}",)
    ),
    "means over environments of rows": Mutant(
        f"{SUPERVISED}.metrics._errors:mean_of_rows", result(), (OWN,)
    ),
    "mean of a trace": Mutant(
        "causal_sgd.training._run:time_average",
        argument("after", 0.8),
        ("tests/analysis/test_time_average.py",),
    ),
    "mean of a dataset": Mutant(
        "causal_sgd.analysis._summaries:time_average",
        argument("after", 0.8),
        ("tests/analysis/test_time_average.py",),
    ),
    "flips of coloured digits": Mutant(
        f"{SUPERVISED}.worlds._digits:_flipped", argument("flip"), (DIGITS,)
    ),
    "size of the colour of digits": Mutant(
        f"{SUPERVISED}.worlds._digits:_encoded", argument("colour"), (DIGITS,)
    ),
    "label flips of digits": Mutant(
        f"{SUPERVISED}.worlds._digits:coloured_digits", argument("invariant_flip"), (DIGITS,)
    ),
    "recoloured digits": Mutant(
        f"{SUPERVISED}.worlds._digits:recoloured", argument("sign", 0.95), (DIGITS,)
    ),
    **{
        f"{function} of a diagnosis": Mutant(
            f"causal_sgd.experiment.diagnosis.{module}:{function}",
            change,
            tuple(f"tests/experiment/test_diagnosis{part}.py" for part in tests),
        )
        for module, function, change, tests in (
            ("_products", "exponents_of", argument("rate"), ("", "_networks")),
            ("_products", "rejecting_steps", result(), ("",)),
            ("_products", "with_errors", result(2.0), ("",)),
            ("_growth", "_matrices", result(), ("", "_networks")),
            ("_disturbances", "disturbed", result(), ("", "_networks")),
            ("_disturbances", "_across", result(10.0), ("_networks",)),
            ("_report", "_left_out", result(), ("_report",)),
            ("_report", "_path", argument("rates", 2.0), ("_report",)),
            ("_report", "_stable", result(3.0), ("_report",)),
        )
    },
}
