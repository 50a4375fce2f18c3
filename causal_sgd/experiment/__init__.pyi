from ._curves import theory_curve as theory_curve
from ._experiment import CHOICES as CHOICES
from ._experiment import INTEGER_AXES as INTEGER_AXES
from ._experiment import SWEEPABLE as SWEEPABLE
from ._experiment import Experiment as Experiment
from ._options import DEFAULT_METRICS as DEFAULT_METRICS
from ._options import MetricName as MetricName
