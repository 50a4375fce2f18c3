"""The arrays that a run of matrix sensing holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from causal_sgd.experiment._sizes import frame_numbers, size

if TYPE_CHECKING:
    from causal_sgd.experiment import Experiment

__all__ = ["arrays"]


def arrays(experiment: Experiment) -> Iterator[dict[str, int]]:
    """Arrays that a run holds: the fields that fix their sizes, and the factor of each."""
    dim = {"dim": size(experiment, "dim")}
    if experiment.model == "order-parameters":
        dim = {"dim": 1}  # nothing has a size of dim
    if experiment.world_file is None:
        yield dim | {"invariant_rank": size(experiment, "invariant_rank")}
        # Without their number the two-point family has 2^r2 environments, and limits r2 itself.
        if experiment.family != "two-point" or experiment.num_environments is not None:
            yield dim | {"spurious_rank": size(experiment, "spurious_rank")}
            yield {
                "num_environments": size(experiment, "num_environments"),
                "spurious_rank": size(experiment, "spurious_rank") ** 2,
            }
    if experiment.model == "order-parameters":
        yield {"rank": size(experiment, "rank") ** 2}
    elif experiment.model in ("quadratic", "relu"):
        yield dim | {"neurons": size(experiment, "neurons")}
    elif "diagonal" in experiment.model:
        yield dim
    elif experiment.rank is None:
        yield {"dim": size(experiment, "dim") ** 2}
    else:
        yield dim | {"rank": size(experiment, "rank")}
    if experiment.measurement == "fixed-design":
        yield {
            "num_examples": size(experiment, "num_examples"),
            "dim": size(experiment, "dim") ** 2 // 2,
        }
    yield frame_numbers(experiment)
