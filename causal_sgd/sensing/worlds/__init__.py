"""How nature is drawn: the invariant signal A* and the spurious signal A_e of every environment.

Every factory checks its arguments and returns a `WorldFactory`, a pure function of a key. The numbers (`mean`, `spread`,
`invariant_spectrum`, `rotation`, `tilt`, `probabilities`) may be traced; dimensions, ranks and numbers of environments are
static. The key decides only the bases and the standardised spectra, so worlds that differ in a number are otherwise the same.

`families` has the distributions of the spurious signals, `arrays` the user's own ones; `assembly` is what families share.
"""

from causal_sgd.sensing.worlds._arrays import from_arrays, from_file
from causal_sgd.sensing.worlds._families import (
    discrete,
    gaussian,
    goe,
    log_normal,
    two_point,
    uniform,
)
from causal_sgd.sensing.worlds._world import World, WorldFactory

__all__ = [
    "World",
    "WorldFactory",
    "discrete",
    "from_arrays",
    "from_file",
    "gaussian",
    "goe",
    "log_normal",
    "two_point",
    "uniform",
]
