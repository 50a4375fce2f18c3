"""Results of sweeps on disk: stores that survive, resume and grow, and are read as labelled arrays."""

from causal_sgd.sweeps.store._disk import Store, open_results
from causal_sgd.sweeps.store._exports import export_results
from causal_sgd.sweeps.store._manifest import Manifest, StoreError

__all__ = ["Manifest", "Store", "StoreError", "export_results", "open_results"]
