"""The nouns that all floors share: worlds, batches, snapshots, traces, and the protocols.

Shapes are written beside the fields: `E` environments of the world, `B` environments of one batch,
`*S` the shape of an estimate, `F` recorded frames. Everything here is unbatched; `sweep` adds the
batch axes with `vmap`. Parameters, states, data and the world are pytrees. Each system has its own
pytrees and its own models.
"""

from causal_sgd import _room
from causal_sgd.types._methods import Estimator, Fit, Measured, Objective
from causal_sgd.types._parts import (
    AnyModel,
    Array,
    Batch,
    Choice,
    Evolution,
    Key,
    Measurement,
    Model,
    Params,
    PyTree,
    RiskFunction,
    Risks,
    Sampler,
    State,
    World,
    WorldFactory,
)
from causal_sgd.types._runs import Algorithm, Trace
from causal_sgd.types._snapshots import (
    Metric,
    Snapshot,
    check_snapshot,
    check_unreduced,
    check_world,
)

_room(__name__)
__all__ = [
    "Algorithm",
    "AnyModel",
    "Array",
    "Batch",
    "Choice",
    "Estimator",
    "Evolution",
    "Fit",
    "Key",
    "Measured",
    "Measurement",
    "Metric",
    "Model",
    "Objective",
    "Params",
    "PyTree",
    "RiskFunction",
    "Risks",
    "Sampler",
    "Snapshot",
    "State",
    "Trace",
    "World",
    "WorldFactory",
    "check_snapshot",
    "check_unreduced",
    "check_world",
]
