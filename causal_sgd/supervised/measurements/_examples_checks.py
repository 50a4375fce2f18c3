"""What `measurements.examples` refuses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causal_sgd import checks
from causal_sgd.supervised import losses
from causal_sgd.supervised.worlds import DataWorld, SupervisedWorld
from causal_sgd.types import Array

__all__ = [
    "check_classes",
    "check_gathering",
    "check_labels",
    "check_noise",
    "last_class",
    "sizes_of",
]


def check_gathering(full: bool, most: object, slots: object) -> None:
    """Refuse limits of gathered examples that contradict each other, or are no whole numbers."""
    for name, number in (("most", most), ("slots", slots)):
        if number is not None:
            checks.integer(name, number)
            if full:
                raise ValueError(
                    f"{name} must be None with full, which uses all examples, got {number}"
                )
    if most is not None and slots is not None:
        raise ValueError(f"most must be None with slots, which limits all examples, got {most}")


def check_labels(loss: losses.Loss, world: SupervisedWorld) -> None:
    """Refuse a user's labels that are no classes under a loss of classes.

    Raises:
        ValueError: if they are not.
    """
    if not isinstance(world, DataWorld) or not (loss.binary or loss.multiclass):
        return
    known = world.classes
    if known is not None and loss.binary and set(known) <= {-1.0, 1.0}:
        return
    if known is not None and loss.multiclass and all(c >= 0 and c == int(c) for c in known):
        return
    allowed = "-1 and 1 under a loss of two classes" if loss.binary else "0, 1, ..., for classes"
    shown = "numbers of any size" if known is None else ", ".join(f"{c:g}" for c in known[:4])
    moved = known is not None and any(c != int(c) for c in known)
    hint = " (standardise of from_arrays moves labels)" if moved else ""
    raise ValueError(
        f"labels must be {allowed}, got {shown}" + (", ..." if len(known or ()) > 4 else "") + hint
    )


def last_class(world: SupervisedWorld) -> float | None:
    """The largest label of a user's data with few different ones."""
    known = world.classes if isinstance(world, DataWorld) else None
    return None if known is None else known[-1]


def check_noise(
    loss: losses.Loss, label_noise: float | Array, noisy: object, counted: bool
) -> None:
    """Refuse noise of labels that makes no sense; `counted` examples have no noise of their own."""
    checks.number("label_noise", label_noise, minimum=0)
    if noisy is not None:
        checks.integer("noisy", noisy)
        if checks.is_zero(label_noise):
            raise ValueError(f"noisy must be None without label_noise, got {noisy}")
    if checks.is_zero(label_noise):
        return
    if loss.binary or loss.multiclass:
        raise ValueError("label_noise must be 0 under a loss of classes, whose labels are no sizes")
    if counted:
        raise ValueError(
            "most must be given with replacement and label_noise, so that copies of an example "
            "have noise of their own, got None"
        )


def sizes_of(number: object) -> int | tuple[int, ...] | None:
    """The numbers of examples as they are given, checked."""
    if number is None:
        return None
    if isinstance(number, np.ndarray) and not number.ndim:
        number = number[()]
    if isinstance(number, Sequence | np.ndarray) and not isinstance(number, str):
        if not len(number):
            raise ValueError("num_examples must be a number, or one of each environment, got none")
        return tuple(
            checks.integer(f"num_examples[{place}]", each) for place, each in enumerate(number)
        )
    return checks.integer("num_examples", number)


def check_classes(loss: losses.Loss, predictions: Array, labels: Array) -> None:
    """Refuse a model with the predictions of another kind of loss."""
    if predictions.ndim != labels.ndim + loss.multiclass:
        kind = "a prediction of each class" if loss.multiclass else "one prediction"
        raise ValueError(
            f"model must have {kind} for this loss, as models.linear(outputs=...) makes them, got "
            f"predictions of shape {[*predictions.shape]} for labels {[*labels.shape]}"
        )
