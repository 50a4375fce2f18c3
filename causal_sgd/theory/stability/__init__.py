"""How large a step may be, and the curvature where it ends: edge, catapult, finite batches, saddle.

Three maps are exact and small. A direction of U U' under population gradients is the cubic map
u <- (1 + eta (s - u^2)) u. The output f and the sharpness S of U V' with one entry and any number
of columns move by a map of these two numbers. The second moments of a small deviation from A* move
by a matrix, whatever the dimension, as the law of a batch of Gaussian measurements is isotropic.

The last one gives three nested thresholds of the learning rate. Gradient descent is stable up to 2
over the sharpness, which is 1/sigma*. SGD has bounded second moments up to `mean_square_edge`, and
almost all of its runs contract up to a higher rate, at which `almost_sure_exponent` vanishes (the
mean-square edge of other laws: Wu, Ma and Su, NeurIPS 2022; the gap between both: Chemnitz and
Engel, arXiv 2407.20209). Environments keep the residual from vanishing, so that larger batches do
not bring back the edge of gradient descent: they end at `heterogeneity_cap`. Smaller ones are
limited by the noise of that residual, `stationary_error`. `saddle_spectrum` is the whole Hessian of
the loss at A*, a strict saddle of the pooled loss. All formulas of these are derived here. SAM has
an edge and a floor of its own, `sam_edge` and `sam_floor`. A sharpening minimum ends slightly below
2 over its sharpness, `sharpening_end`, and environments take it away from there, `flattening_time`.

The loss is (1/4m) sum_i (<X_i, UU'> - y_i)^2, so that the sharpness of U U' = A* is 2 sigma_1 and
that of U V' in one dimension is S = (|u|^2 + |v|^2)/2.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
