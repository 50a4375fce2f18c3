"""Results of sweeps on disk: stores that survive, resume and grow, and are read as labelled arrays."""

from causal_sgd.store.disk import Store, open_results
from causal_sgd.store.exports import export_results
from causal_sgd.store.headers import Header, StoreError

__all__ = ["Header", "Store", "StoreError", "export_results", "open_results"]
