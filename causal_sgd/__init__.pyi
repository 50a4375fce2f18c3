import collections.abc as _abc

from . import analysis as analysis
from . import figures as figures
from . import sensing as sensing
from . import studies as studies
from . import supervised as supervised
from . import theory as theory
from .experiment import Experiment as Experiment
from .experiment import diagnosis as diagnosis
from .sweeps import ExecutorError as ExecutorError
from .sweeps import StoreError as StoreError
from .sweeps import SweepError as SweepError
from .sweeps import compare as compare
from .sweeps import open_results as open_results
from .sweeps import refine as refine
from .sweeps import slurm as slurm
from .sweeps import store as store
from .sweeps import sweep as sweep
from .sweeps import use_compilation_cache as use_compilation_cache
from .sweeps import use_cpu_cores as use_cpu_cores
from .sweeps import zipped as zipped
from .training import algorithms as algorithms
from .training import curvature as curvature
from .training import objectives as objectives
from .training import optimizers as optimizers
from .training import run as run
from .training import samplers as samplers
from .training import sgd as sgd
from .training import time_average as time_average

__version__: str

def _attach(name: str, file: str) -> tuple[_abc.Callable, _abc.Callable, list[str]]: ...
def _room(name: str) -> None: ...
