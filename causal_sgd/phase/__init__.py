"""Where a transition lies, with its uncertainty, and how to find it with few runs.

`boundaries` has two estimators of the boundary from any sweep: the order parameter extrapolated to zero, and the crossing of a
share by the fraction of seeds that reject the spurious part, at the last step or extrapolated in its inverse. `refinement` runs those cells of a diagram through which
the boundary passes, and no others. `growth` measures the exponent itself, in runs too short to leave the linear regime.
"""

from __future__ import annotations

from causal_sgd.phase.boundaries import (
    Boundary,
    finite_time_boundary,
    level_crossing,
    order_parameter_boundary,
    rejecting_fraction,
    rejection_boundary,
)
from causal_sgd.phase.growth import growth_rate
from causal_sgd.phase.refinement import Refinement, Request, ask, check_metric, refine, refinement, tell

__all__ = [
    "Boundary", "Refinement", "Request", "ask", "check_metric", "finite_time_boundary", "growth_rate", "level_crossing", "order_parameter_boundary", "refine",
    "refinement",
    "rejecting_fraction", "rejection_boundary", "tell",
]  # fmt: skip
