from ._linear import linear as linear
from ._model import VectorModel as VectorModel
