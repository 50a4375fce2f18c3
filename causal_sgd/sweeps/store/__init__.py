"""Results of sweeps on disk: stores that survive, resume and grow, read as labelled arrays."""

from causal_sgd import _room
from causal_sgd.sweeps.store._disk import Store, open_results
from causal_sgd.sweeps.store._exports import export_results
from causal_sgd.sweeps.store._manifest import Manifest, StoreError
from causal_sgd.sweeps.store._repair import repair
from causal_sgd.sweeps.store._results import StoredResults

_room(__name__)
__all__ = [
    "Manifest",
    "Store",
    "StoreError",
    "StoredResults",
    "export_results",
    "open_results",
    "repair",
]
