from . import contradiction as contradiction
from . import two_bit as two_bit
from ._thresholds import Thresholds as Thresholds
from ._thresholds import eills_thresholds as eills_thresholds
from ._thresholds import fair_thresholds as fair_thresholds
