from . import diagnosis as diagnosis
from ._curves import theory_curve as theory_curve
from ._sensing._experiment import Experiment as Experiment
from ._sensing._metrics import DEFAULT_METRICS as DEFAULT_METRICS
from ._sensing._metrics import MetricName as MetricName
from ._supervised._experiment import SupervisedExperiment as SupervisedExperiment
from ._supervised._metrics import SupervisedMetricName as SupervisedMetricName
from ._systems import SYSTEMS as SYSTEMS
