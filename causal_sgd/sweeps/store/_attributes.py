"""What the attributes in the header of a store may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from causal_sgd.sweeps.store._files import Files
from causal_sgd.sweeps.store._manifest import StoreError

__all__ = ["check_attributes", "check_environment"]


def check_attributes(files: Files, attributes: Mapping[str, object]) -> None:
    """Raise StoreError if an attribute of a store is missing or has another type."""
    allowed = dict(_ALLOWED)
    if cast(int, attributes["format_version"]) >= 3:
        allowed |= _SINCE_FORMAT_3
    for name, (is_valid, wanted) in allowed.items():
        if name not in attributes:
            if name in _OPTIONAL:
                continue
            raise StoreError(f"{files} was altered: its zarr.json has no attribute {name!r}")
        if not is_valid(attributes[name]):
            raise StoreError(
                f"{files} was altered: the attribute {name!r} in its zarr.json must be {wanted}, "
                f"got {repr(attributes[name])[:60]}"
            )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are(values: object, is_valid: Callable[[object], bool]) -> bool:
    return isinstance(values, list) and all(map(is_valid, values))


def _is_environment(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("versions"), dict):
        return False
    texts = [value.get(name) for name in ("platform", "device", "cpu")]
    return all(map(_is_text, [*texts, *(value["versions"].get(n) for n in ("causal_sgd", "jax"))]))


def check_environment(environment: object) -> None:
    """Raise ValueError if this is not the description of what computes."""
    if not _is_environment(environment):
        raise ValueError(
            "environment must be a mapping with versions, platform, device and cpu, "
            f"got a {type(environment).__name__}"
        )


def _is_grid(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("axes"), dict):
        return False
    axes, seeds = value["axes"], value.get("seeds")
    if isinstance(seeds, dict):
        ends = seeds.get("range")
        whole = isinstance(ends, list) and len(ends) == 2 and _are(ends, _is_whole)
        increasing = whole and cast(list, ends)[0] < cast(list, ends)[1]
    else:
        increasing = bool(seeds) and _are(seeds, _is_whole)
    return increasing and all(
        isinstance(axis, dict)
        and axis
        and all(values and _are(values, _is_number) for values in axis.values())
        for axis in axes.values()
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_metrics(configuration: Mapping[str, object]) -> bool:
    metrics = configuration.get("metrics")
    return isinstance(metrics, dict) and all(
        isinstance(each, list) and len(each) == 2 and _is_text(each[0]) and _are(each[1], _is_whole)
        for each in metrics.values()
    )


_ALLOWED: dict[str, tuple[Callable[[object], bool], str]] = {
    "created": (_is_text, "text"),
    "configuration": (
        lambda value: (
            isinstance(value, dict)
            and all(map(_is_text, (value.get("key"), value.get("key_implementation"))))
            and _is_metrics(value)
        ),
        "a mapping with a key and metrics",
    ),
    "configuration_hash": (_is_text, "text"),
    "parameters": (
        lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
        "a mapping of names to types",
    ),
    "variables": (
        lambda value: _are(value, _is_text) and "diverged_at" in cast(list, value),
        "a list of names with diverged_at",
    ),
    "tile": (lambda value: _is_whole(value) and cast(int, value) > 0, "a whole number above 0"),
    "by_seed": (lambda value: isinstance(value, bool), "true or false"),
    "steps": (lambda value: value is None or _are(value, _is_whole), "null or whole numbers"),
    "source": (lambda value: value is None or _is_text(value), "null or text"),
    "requests": (lambda value: _are(value, _is_grid), "a list of grids"),
    "environments": (lambda value: _are(value, _is_environment), "a list of environments"),
    "files": (
        lambda value: (
            isinstance(value, dict) and all(_are(paths, _is_text) for paths in value.values())
        ),
        "a mapping of names to lists of paths",
    ),
}
"""What the attributes of a store may be, apart from its format."""

_SINCE_FORMAT_3: dict[str, tuple[Callable[[object], bool], str]] = {
    "tiles_per_unit": (
        lambda value: value is None or (_is_whole(value) and 1 <= cast(int, value) <= 64),
        "null or a whole number from 1 to 64",
    ),
    **dict.fromkeys(
        ("rows", "inputs_crc32c", "generation"),
        (lambda value: _is_whole(value) and cast(int, value) >= 0, "a whole number"),
    ),
    "header_hash": (_is_text, "text"),
    "chunk_separator": (lambda value: value in (".", "/"), "a dot or a slash"),
}

_OPTIONAL = {"by_seed", "files", "chunk_separator"}
