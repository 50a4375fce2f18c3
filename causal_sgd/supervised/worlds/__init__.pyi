from ._chain import chain as chain
from ._chain import unit_test_regression as unit_test_regression
from ._contradiction import anticausal as anticausal
from ._contradiction import contradiction as contradiction
from ._linear import LinearWorld as LinearWorld
from ._placement import Placement as Placement
from ._world import SupervisedWorld as SupervisedWorld
from ._world import WorldFactory as WorldFactory
