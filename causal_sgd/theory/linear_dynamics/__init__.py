"""Training and test losses of a linear model under gradient descent, and when it groks.

A student w of p inputs learns y = x'w* from n examples x ~ N(0, I) by full-batch gradient descent
on the loss R/4, R the mean squared residual (the teacher and student of Levi et al. 2023, whose
formulas are derived here). With S = sum_i x_i x_i'/n and the error D = w - w* a step is

    D <- (1 - (eta/2) S) D,   R on the n examples = D'S D,   R on new ones = |D|^2.

For isotropic D at the start, with E|D|^2 = 1, only the eigenvalues of S matter. As p and n grow at
a fixed ratio = p/n they follow Marchenko and Pastur (1967): a density on [(1 - r)^2, (1 + r)^2], r
= sqrt(ratio), and a share 1 - 1/ratio of zeros beyond ratio 1. So after t steps, c = 1 - eta nu/2,

    training = int nu c^(2t) dMP(nu),   test = int c^(2t) dMP(nu).

Small eigenvalues count less in training than in the test, which therefore follows late.

**Environments** e have labels x'(w* + a_e), where the a_e average to zero, have the mean square
M^2 (the spread) and isotropic directions; the test has labels x'w*. On one *shared* design a step
of HeteroSGD has the noise (eta/2) S a_e, so that

    test     = int [c^(2t) + M^2 (1 - c^(2t)) eta nu/(4 - eta nu)] dMP,
    training = M^2 + int nu [the same] dMP.

Batches of all environments have no noise; M^2 stays in training, as no weights fit contradictory
labels. The noise counts for more in training than in the test, as it grows with nu, whose mean is
1. With *own* designs, n examples in all, the residuals x'a_e of all of them act on gradient
descent like label noise of variance M^2 that is independent of the inputs:

    test     = int [c^(2t) + M^2 ratio (1 - c^t)^2/nu] dMP  ->  M^2 ratio/(1 - ratio),
    training = int nu c^(2t) dMP + M^2 [1 - ratio + ratio int c^(2t) dMP]  ->  M^2 (1 - ratio).

Then the limits of both losses are equal at ratio = (3 - sqrt(5))/2 = 0.382. The noise of HeteroSGD
is that of the residuals which the fit leaves. For two environments with n/2 examples each, let the
inputs be X = U (n S)^(1/2), with orthonormal columns of U, and R the diagonal matrix of the signs
of a_e. At the fit the gradient of an environment is S^(1/2) (1 - C^2) S^(1/2) a_e/2 with C =
U'RU, which is free of S. The means of C^2 and C^4 are ratio and 2 ratio^2 - ratio^3. Hence eta nu
in the noise above becomes eta [(1 - ratio)^2 nu + ratio^2 (1 - ratio)] at late times, to first
order in the learning rate; beyond ratio 1 the fit leaves nothing, and there is no noise.

All losses are mean squared residuals in units of E|D|^2 at the start, and spreads are in units of
its root.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
