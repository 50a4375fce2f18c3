from ._contradiction import contradiction as contradiction
from ._linear import LinearWorld as LinearWorld
from ._world import SupervisedWorld as SupervisedWorld
from ._world import WorldFactory as WorldFactory
