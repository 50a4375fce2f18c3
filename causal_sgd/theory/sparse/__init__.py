"""Sparse solutions: the Lasso that heterogeneous training solves, and what interpolators it meets.

Diagonal networks hold every weight as a square, theta_i = u_i^2 >= 0, or as a difference of two. A
step multiplies u_i by 1 - eta g_i, with g the gradient of theta'S theta / 2 - b'theta in the
environment of the step. Without noise the small start makes them find an interpolator of least
hyperbolic entropy (Woodworth et al. 2020), and of least l1 norm as the start goes to zero. With
noise that does not vanish (environments, labels, batches) log u_i is a walk: a coordinate survives
where E log|1 - eta g_i| = 0 and dies where it is negative. Since log|1 - x| = -x - x^2 / 2 - ..,
to first order in eta these are the optimality conditions of the weighted Lasso

    min over theta >= 0 of  theta'S theta / 2 - b'theta + (eta / 2) sum_i V_i theta_i,

with V_i = Var(g_i) at its solution: the penalties are known beforehand. Label noise gives the Lasso
of Pillaud-Vivien, Reygner and Flammarion (COLT 2022), environments that of `heterogeneity_lasso`,
derived here.

Data are X [n, d] and y [n], S = X'X / n and b = X'y / n or those of a population; the loss is the
mean of (x'theta - y)^2 / 4, so that u * u moves by exactly eta g_i. Arrays may be traced and have
leading axes, which broadcast.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
