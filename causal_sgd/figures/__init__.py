"""Figures of sweeps: an `xarray.Dataset` and a matplotlib `Axes` in, artists out.

Importing it loads neither jax nor pyplot and leaves the global rcParams unchanged; create and save
figures inside `with style():` for the style of the package. Colour is never the only distinction:
lines differ in dash and marker, colour maps are monotone in lightness, cells without a value are
hatched. Legends are placed outside the axes, so they never hide data.

Datasets are those of a sweep: metrics with dims (*axes, seed, step), or without `step` once reduced
to final values, and `diverged_at` (*axes, seed), -1 for never (it may be absent if no run
diverged). A diverged run counts in the diverged fraction and in nothing else. A value that is not
finite in a run that did not diverge is missing. Compared methods are the values of a leading dim
`variant` (not `method`, which is an option of `.sel`).
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
