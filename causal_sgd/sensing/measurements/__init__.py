"""How examples become a gradient: in the mean, by the exact law of the batch gradient, really drawn, or from a data set."""

from causal_sgd.sensing.measurements._designs import fixed_design
from causal_sgd.sensing.measurements._entries import completion
from causal_sgd.sensing.measurements._gaussian import gaussian_law, population, streamed
from causal_sgd.sensing.measurements._low_rank import low_rank_law
from causal_sgd.sensing.measurements._networks import examples, rank_one

__all__ = [
    "completion",
    "examples",
    "fixed_design",
    "gaussian_law",
    "low_rank_law",
    "population",
    "rank_one",
    "streamed",
]
