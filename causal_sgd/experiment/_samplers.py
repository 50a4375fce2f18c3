"""Which environments feed a step."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import Table, absent, option

__all__ = ["PURE", "SAMPLERS", "SamplerFields", "SamplerName"]

EQUAL = (absent("probabilities", "it visits all environments equally often"),)


def _module() -> ModuleType:
    from causal_sgd.training import samplers

    return samplers


SAMPLERS = Table(
    "sampler",
    "sampler",
    _module,
    {
        "hetero": option("batch_size", curve=True),
        "pooled": option("batch_size"),
        "cyclic": option("batch_size", requires=EQUAL, curve=True),
        "shuffled": option("batch_size", requires=EQUAL, curve=True),
        "block": option("batch_size", length="block_length", requires=EQUAL, curve=True),
        "sticky": option("batch_size", "stay", curve=True),
        "mixed": option("batch_size", "environments_per_batch"),
        "stratified": option("batch_size", requires=EQUAL),
    },
)

PURE = ("hetero", "cyclic", "shuffled", "block", "sticky")
"""The samplers whose batches are of one environment."""

if TYPE_CHECKING:
    SamplerName = str
else:
    SamplerName = Literal[tuple(SAMPLERS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerFields:
    """The sampler and its numbers."""

    sampler: SamplerName = "hetero"
    """Which environments feed a step. Batches of one environment: hetero (HeteroSGD, drawn at
    random), cyclic, shuffled, block, sticky. Batches of several: pooled (PooledSGD), mixed,
    stratified."""
    batch_size: Axis[int] = 1000
    """Examples per batch."""
    stay: Axis[float] = 0.9
    """Probability of staying in an environment (sticky)."""
    block_length: Axis[int] = 10
    """Steps in an environment before the next (block)."""
    environments_per_batch: int = 2
    """Environments in a batch (mixed)."""
