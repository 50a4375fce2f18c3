from ._batches import batch_moments as batch_moments
from ._counts import counts as counts
from ._directions import batch_directions as batch_directions
from ._examples import examples as examples
from ._moments import moments as moments
from ._projections import batch_projections as batch_projections
from ._quadrature import quadrature as quadrature
