"""Worlds: the invariant signal A* and the spurious signal A_e of every environment.

Every factory checks its arguments and returns a `WorldFactory`, a pure function of a key. The
numbers (`mean`, `spread`, `invariant_spectrum`, `rotation`, `tilt`, `probabilities`) may be traced;
dimensions, ranks and numbers of environments are static. The key decides only the bases and the
standardised spectra, so worlds that differ in a number are otherwise the same. The spurious rank
may be 0: all environments then have the signal A*.

`from_quantile` makes a family from a distribution, `from_arrays` and `from_file` take given
signals. All families take the options of `Geometry`.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
