"""This machine: its cores and devices, the compilation cache, and a description for provenance."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import jax

import causal_sgd
from causal_sgd import checks
from causal_sgd.sweeps._provenance import Machine

__all__ = [
    "NO_FORK",
    "applied",
    "compiler",
    "cores",
    "environment",
    "kind_of_cpu",
    "local_devices",
    "present_devices",
    "setting",
    "settings",
    "use_compilation_cache",
    "use_cpu_cores",
    "versions",
    "was_forked",
]

_PACKAGES = ("jax", "jaxlib", "optax", "numpy")
Setting: TypeAlias = bool | int | str | None
"""The value of one of jax's settings."""


class Device(Protocol):
    """A `jax.Device`, which type checkers do not see as a type."""

    @property
    def platform(self) -> str:
        """Such as "cpu" or "gpu"."""
        ...

    @property
    def device_kind(self) -> str:
        """The model of the device."""
        ...

    def memory_stats(self) -> Mapping[str, int] | None:
        """Bytes in use, the limit and more; None where they are not known."""
        ...


def use_cpu_cores(count: int | None = None) -> int:
    """Make jax treat CPU cores as devices, so that a sweep uses them all.

    Call it before the first use of jax. A sweep that is the first use of jax does it for all cores.

    Args:
        count: the number of cores; None for all that this process may use.

    Returns:
        The number of local devices that sweeps will use.

    Raises:
        ValueError: if `count` is out of range.

    Warns:
        UserWarning: if jax has already started with fewer CPU devices, which it keeps.
    """
    wanted = cores() if count is None else checks.integer("count", count)
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:
        _warn_too_late(wanted)
    return len(present_devices())


def local_devices(devices: Sequence[Device] | None) -> list[Device]:
    """The given devices, or all local ones of the default backend.

    If jax has not started, every CPU core becomes a device first.

    Raises:
        ValueError: if `devices` is empty or not a list of devices, or this process cannot compute
            because it was forked after jax had started.
    """
    if was_forked():
        raise ValueError(f"the process of a sweep {NO_FORK}")
    if devices is not None:
        allowed = "a list of devices, such as jax.devices() returns"
        for device in checks.instance("devices", devices, Sequence, allowed):
            checks.instance("devices", device, jax.Device, allowed)
        if not len(devices):
            raise ValueError("devices must name at least one device, got none")
        return list(devices)
    # A user's own choice is kept.
    chosen = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    count = setting("jax_num_cpu_devices")  # -1 unless it was set
    if isinstance(count, int) and count < 0 and not chosen:
        try:
            jax.config.update("jax_num_cpu_devices", cores())
        except RuntimeError:
            _warn_too_late(cores())
    return present_devices()


def present_devices() -> list[Device]:
    """The local devices of jax's default backend.

    Raises:
        ValueError: if jax has none of the platforms that the user chose.
    """
    try:
        return list(jax.local_devices())
    except (RuntimeError, AssertionError) as error:  # an assertion fails where no plugin is there
        chosen = setting("jax_platforms")
        if not chosen:
            raise
        reason = str(error).partition(" (set ")[0] or "there is no such device"
        raise ValueError(
            f"JAX_PLATFORMS must name platforms that jax finds here, such as cpu, got {chosen!r}: "
            f"{reason}"
        ) from None


NO_FORK = (
    "must not be forked after jax has started, because jax's threads do not survive a fork; start "
    'it with multiprocessing.get_context("spawn")'
)


def was_forked() -> bool:
    """Whether this process was forked after jax had started, so that it would hang."""
    return _fork.started and _fork.parent != os.getpid()


def has_started() -> bool:
    """Whether jax has started, which fixes its devices."""
    count = setting("jax_num_cpu_devices")
    assert isinstance(count, int)
    try:
        jax.config.update("jax_num_cpu_devices", count + 1)  # refused after the start
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", count)
    return False


class _Fork(NamedTuple):
    """The last fork on the way to this process."""

    parent: int  # process id
    started: bool  # whether jax had started in the parent


_fork = _Fork(0, False)


def _record_fork() -> None:
    global _fork
    _fork = _Fork(os.getpid(), was_forked() or has_started())


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(before=_record_fork)


def use_compilation_cache(folder: str | Path) -> Path:
    """Keep compiled programs on disk, so that later processes load instead of compiling them.

    Each kind of machine has its own subfolder: code compiled for one CPU may not run on another.

    Args:
        folder: where; created if missing.

    Returns:
        The folder of this kind of machine.

    Raises:
        ValueError: if the folder cannot be written.
    """
    own = checks.path("folder", folder) / kind_of_cpu()
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"folder must be one that can be written, got {folder}: {error.strerror}"
        ) from None
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return own


def environment(device: Device) -> Machine:
    """What results depend on beyond their program: versions, platform, device, precision."""
    return {
        "versions": versions(),
        "platform": device.platform,
        "device": device.device_kind,
        "machine": platform.machine(),
        "cpu": kind_of_cpu(),
        "x64": bool(setting("jax_enable_x64")),
        "matmul_precision": str(setting("jax_default_matmul_precision") or "default"),
        "compiler": compiler(),
        "git_commit": _git_commit(),
    }


# Settings of jax that change the code that XLA compiles, and their defaults.
_COMPILER: Mapping[str, Setting | float] = {
    "jax_allow_f16_reductions": True,
    "jax_disable_most_optimizations": False,
    "jax_enable_pgle": False,
    "jax_enable_remat_opt_pass": True,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_memory_fitting_level": "O2",
    "jax_optimization_level": "UNKNOWN",
    "jax_threefry_gpu_kernel_lowering": False,
    "jax_use_shardy_partitioner": True,
    "jax_xla_profile_version": 0,
}
_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_VARIABLES = ("NVIDIA_TF32_OVERRIDE",)
# Flags of XLA that say where to run or what to write down, and change no bit.
_HARMLESS = re.compile(
    r"xla_(dump_|force_host_platform_device_count|gpu_cuda_data_dir|hlo_profile|detailed_logging)"
)


def compiler() -> dict[str, str]:
    """What differs from the compiler's defaults and may change bits: settings, flags, variables.

    XLA reads its flags once in a process, so these are those of the first call.
    """
    # Some settings can be changed in a context, and are attributes; others are values only.
    values = {
        name: getattr(jax.config, name, jax.config.values.get(name, default))
        for name, default in _COMPILER.items()
    }
    changed = {name: str(value) for name, value in values.items() if value != _COMPILER[name]}
    return {**_flags(), **changed}


@functools.cache
def _flags() -> Mapping[str, str]:
    """Flags and variables of the environment that change what XLA and its libraries compute."""
    flags: dict[str, str] = {}
    for variable in _FLAGS:
        text = os.environ.get(variable, "").strip()
        if text and not text.startswith("-"):  # the name of a file of flags
            with contextlib.suppress(OSError):
                text = Path(text).read_text()
        for flag in text.split():
            name, _, value = flag.lstrip("-").partition("=")
            if not _HARMLESS.match(name):
                flags[name] = value or "true"
    flags |= {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return dict(sorted(flags.items()))


def setting(name: str) -> Setting:
    """Read a setting of jax; its type stubs do not declare them."""
    return getattr(jax.config, name)


def settings() -> dict[str, Setting]:
    """The settings of jax that affect results, in this thread."""
    return {name: setting(name) for name in _RESULTS}


@contextlib.contextmanager
def applied(values: Mapping[str, Setting]) -> Iterator[None]:
    """Apply the settings of another thread or process to this thread, within a context.

    Aids for debugging, which programs for many runs cannot obey, are off.
    """
    with contextlib.ExitStack() as stack:
        for name, value in {**values, **_WITHOUT_AIDS}.items():
            if setting(name) != value:
                stack.enter_context(_CONTEXTS[name](value))
        yield


# Diverged runs have NaN and infinite values, and a program is compiled ahead of its calls.
_WITHOUT_AIDS: Mapping[str, Setting] = {
    "jax_disable_jit": False,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_transfer_guard": None,
}


_RESULTS: Mapping[str, Callable[..., contextlib.AbstractContextManager[object]]] = {
    "jax_enable_x64": jax.enable_x64,
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_threefry_partitionable": jax.threefry_partitionable,
}
_CONTEXTS: Mapping[str, Callable[..., contextlib.AbstractContextManager[object]]] = {
    **_RESULTS,
    "jax_disable_jit": jax.disable_jit,
    "jax_debug_nans": jax.debug_nans,
    "jax_debug_infs": jax.debug_infs,
    "jax_numpy_dtype_promotion": jax.numpy_dtype_promotion,
    "jax_transfer_guard": lambda value: jax.transfer_guard(value or "allow"),
}


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_warned: set[int] = set()


def _warn_too_late(wanted: int) -> None:
    have = present_devices()
    if have[0].platform == "cpu" and len(have) < wanted and wanted not in _warned:
        _warned.add(wanted)
        warnings.warn(
            f"jax had started before it could be told to use {wanted} CPU cores, so sweeps use "
            f"{len(have)}: call causal_sgd.use_cpu_cores() before the first use of jax, or set "
            "JAX_NUM_CPU_DEVICES",
            stacklevel=4,
        )


@functools.cache
def kind_of_cpu() -> str:
    """A short name that is equal for CPUs with equal instruction sets."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(
            (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), ""
        )
    instructions = " ".join(sorted(flags.split())) or platform.processor()
    digest = hashlib.sha256(instructions.encode()).hexdigest()
    return f"{platform.system()}-{platform.machine()}-{digest[:8]}".lower()


def versions() -> dict[str, str]:
    """The versions of the packages on which results depend."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    # An editable installation keeps the version that it was made with.
    versions = {"causal_sgd": causal_sgd.__version__}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {**versions, "python": platform.python_version()}


@functools.cache
def _git_commit() -> str | None:
    """The commit of the working directory, if it is a repository."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
