from ._diagnose import Diagnosis as Diagnosis
from ._diagnose import diagnose as diagnose
from ._growth import Growth as Growth
from ._growth import growth as growth
from ._report import Report as Report
from ._report import report as report
