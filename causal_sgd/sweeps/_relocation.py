"""What was compiled for one CPU core, for another: its machine code is the same, and loading it costs far less than compiling.

jax has no public way to do this. What is used here was made for keeping programs on disk; where it is not what it was in jax
0.10.2 the answer is None, and the caller compiles. Before that version XLA takes its own preferences for features of the CPU,
misses them, and writes an alarm to stderr for each program.
"""

from __future__ import annotations

import collections
import importlib.metadata
import io
import logging
import pickle
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable
from packaging.version import Version

from causal_sgd.sweeps._machine import Device

__all__ = ["moved"]

QUIET = Version(importlib.metadata.version("jaxlib")) >= Version("0.10.2")
log = logging.getLogger(__name__)


def moved(compiled: Any, device: Device) -> Any | None:
    """A compiled program (`jax.stages.Compiled`) of one CPU device for another one of the same process.

    Only for programs that were compiled in this process: one that was moved or comes from a cache on disk fails when it
    runs. And not for programs that call Python back.

    Returns:
        The program for that device, which gives the same bits, or None if it cannot be had without compiling.
    """
    if not QUIET:
        return None
    try:
        payload, in_tree, out_tree = serialize_executable.serialize(compiled)
        program, arguments, no_kwargs = _unpickler(payload, device).load()
        return jax.stages.Compiled(
            program.load(), [], in_tree.unflatten(arguments), out_tree, no_kwargs=no_kwargs
        )
    except (
        AttributeError,
        ImportError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        log.debug("a program is compiled once more, as it cannot be moved: %r", error)
        return None


def _unpickler(payload: bytes, device: Device) -> pickle.Unpickler:
    """Loads a program as one of `device`, whatever device it names."""
    from jax._src.lib import xla_client  # pyright: ignore[reportPrivateImportUsage]

    class Mover(serialize_executable._JaxPjrtUnpickler):
        def __init__(self) -> None:
            super().__init__(io.BytesIO(payload), device.client, [device])
            self.devices_by_id = collections.defaultdict(lambda: device)

        def persistent_load(self, pid: Any) -> Any:
            if pid[0] != "exec":
                return super().persistent_load(pid)
            options = xla_client.CompileOptions()
            options.num_replicas = options.num_partitions = 1
            options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id]]))
            return self.backend.deserialize_executable(pid[1], self.execution_devices, options)

    return Mover()
