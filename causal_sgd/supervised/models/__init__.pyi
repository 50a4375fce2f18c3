from ._gated import GatedModel as GatedModel
from ._gated import gated as gated
from ._linear import featurised as featurised
from ._linear import hadamard as hadamard
from ._linear import linear as linear
from ._linear import products as products
from ._model import VectorModel as VectorModel
from ._networks import linear_network as linear_network
