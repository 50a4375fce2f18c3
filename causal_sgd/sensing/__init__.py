"""System 1, multi-environment matrix sensing [Xu, Gu, Fang 2024]: signals A* + A_e, seen through measurements.

`worlds` draws the signals and `nonstationary` changes them during a run; `measurements` turns examples
into gradients; `models` are what is trained, and `metrics` what is recorded.
"""

from causal_sgd.sensing import measurements, metrics, models, nonstationary, worlds
from causal_sgd.sensing.worlds import World

__all__ = ["World", "measurements", "metrics", "models", "nonstationary", "worlds"]
