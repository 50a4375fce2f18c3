"""How examples become a gradient: in the mean, by the exact law of the batch gradient, or really drawn."""

from causal_sgd.measurements.gaussian import gaussian_law, population, streamed

__all__ = ["gaussian_law", "population", "streamed"]
