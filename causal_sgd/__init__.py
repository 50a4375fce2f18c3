"""causal_sgd: how SGD over heterogeneous environments learns the invariant and forgets the spurious."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from causal_sgd import (
        algorithms,
        evolutions,
        measurements,
        metrics,
        models,
        optimizers,
        phase,
        plots,
        samplers,
        studies,
        theory,
        worlds,
    )  # fmt: skip
    from causal_sgd.algorithms import sgd
    from causal_sgd.executors import slurm
    from causal_sgd.grids import zipped
    from causal_sgd.machine import use_compilation_cache, use_cpu_cores
    from causal_sgd.simulate import run, time_average
    from causal_sgd.store import StoreError, open_results
    from causal_sgd.sweeps import SweepError, compare, sweep

_HOME = {
    "sgd": "algorithms",
    "run": "simulate",
    "time_average": "simulate",
    "StoreError": "store",
    "SweepError": "sweeps",
    "compare": "sweeps",
    "open_results": "store",
    "slurm": "executors",
    "sweep": "sweeps",
    "use_compilation_cache": "machine",
    "use_cpu_cores": "machine",
    "zipped": "grids",
}
_ROOMS = (
    "algorithms", "evolutions", "measurements", "metrics", "models", "optimizers", "phase", "plots", "samplers", "studies", "theory",
    "worlds",
)  # fmt: skip

__all__ = [
    "StoreError", "SweepError", "__version__", "algorithms", "compare", "evolutions", "measurements", "metrics", "models",
    "open_results", "optimizers", "phase",
    "plots", "run", "samplers", "sgd", "slurm", "studies", "sweep", "theory", "time_average", "use_compilation_cache",
    "use_cpu_cores", "worlds", "zipped",
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
