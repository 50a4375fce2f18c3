from ._interpolators import hyperbolic_interpolator as hyperbolic_interpolator
from ._interpolators import l1_interpolator as l1_interpolator
from ._lasso import weighted_lasso as weighted_lasso
