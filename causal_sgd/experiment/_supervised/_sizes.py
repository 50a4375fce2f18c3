"""The arrays that a run of regression holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from causal_sgd.experiment._sizes import frame_numbers, size

if TYPE_CHECKING:
    from causal_sgd.experiment import SupervisedExperiment

__all__ = ["arrays"]


def arrays(experiment: SupervisedExperiment) -> Iterator[dict[str, int]]:
    """Arrays that a run holds: the fields that fix their sizes, and the factor of each."""
    if experiment.data_file is None:
        # A world has at least the moments of its inputs.
        yield {"dim_invariant": size(experiment, "dim_invariant") ** 2}
        yield {"dim_spurious": size(experiment, "dim_spurious") ** 2}
        yield {"num_environments": size(experiment, "num_environments")}
        if experiment.world in ("regression", "fixed-design", "single-index"):
            yield {"dim": size(experiment, "dim") ** 2}
        if experiment.world == "fixed-design":
            yield {
                "data_examples": size(experiment, "data_examples"),
                "dim": size(experiment, "dim"),
            }
        if experiment.world == "balancing":
            yield {"dim_noise": size(experiment, "dim_noise") ** 2}
    if not experiment.fits:
        if experiment.model == "linear-network":
            layers = max(size(experiment, "depth") - 2, 0) or 1
            square = 2 if experiment.depth > 2 else 1
            yield {"width": size(experiment, "width") ** square, "depth": layers}
        if experiment.model == "featurised":
            yield {"features": size(experiment, "features")}
    yield frame_numbers(experiment)
