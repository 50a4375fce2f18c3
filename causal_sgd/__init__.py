"""causal_sgd: how SGD over heterogeneous environments learns the invariant and forgets the spurious."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from causal_sgd import measurements, metrics, models, phase, plots, samplers, studies, theory, worlds
    from causal_sgd.algorithms import sgd
    from causal_sgd.grids import zipped
    from causal_sgd.simulate import run, time_average
    from causal_sgd.sweeps import compare, sweep, use_cpu_cores

_HOME = {
    "sgd": "algorithms",
    "run": "simulate",
    "time_average": "simulate",
    "compare": "sweeps",
    "sweep": "sweeps",
    "use_cpu_cores": "sweeps",
    "zipped": "grids",
}
_ROOMS = (
    "measurements", "metrics", "models", "phase", "plots", "samplers", "studies", "theory", "worlds",
)  # fmt: skip

__all__ = [
    "__version__", "compare", "measurements", "metrics", "models", "phase", "plots", "run", "samplers", "sgd",
    "studies", "sweep", "theory", "time_average", "use_cpu_cores", "worlds", "zipped",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Lazily, so that the command line answers `--help` without starting jax.
    if name in _HOME:
        return getattr(importlib.import_module(f"causal_sgd.{_HOME[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"causal_sgd.{name}")
    raise AttributeError(f"module 'causal_sgd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
