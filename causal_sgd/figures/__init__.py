"""Figures of sweeps: an `xarray.Dataset` and a matplotlib `Axes` in, artists out.

Nothing here imports jax or pyplot or changes the global rcParams; make and save figures inside
`with style():` for the look of the package. Nothing is told by colour alone: lines differ in dash and marker,
colour maps are monotone in lightness, cells without a value are hatched. Legends stand below the axes, so
they never hide data.

Datasets are those of a sweep: metrics with dims (*axes, seed, step), or without `step` once reduced to final
values, and `diverged_at` (*axes, seed), -1 for never (or left out, if no run diverged). A diverged run counts
in the diverged fraction and in nothing else. A value that is not finite although its run did not diverge is
missing.

`figures` draws them, from the pieces in `artists`, the names and colours in `looks` and the numbers in `tables`.
Compared methods are the values of a leading dim `variant`; it is not called `method`, which is an option of
`.sel`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
