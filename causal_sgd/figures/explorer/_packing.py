"""Numbers as text for a page: base64 of typed arrays, and trajectories in two bytes a number."""

from __future__ import annotations

import base64
from typing import TypedDict

import numpy as np
import numpy.typing as npt

__all__ = ["MISSING", "Tracks", "packed", "quantised", "restored"]

MISSING = 65535  # the code of a value that is missing
TOP = MISSING - 1  # the code of the highest value


class Tracks(TypedDict):
    """Trajectories in 16-bit codes: 0 is the lowest value of a trajectory, 65534 the highest."""

    codes: str  # uint16, [*cells, frames, bands]
    low: str  # float32, [*cells], of the logarithms where `logarithmic`
    high: str  # float32, [*cells]
    logarithmic: str  # uint8, [*cells]


def packed(values: npt.ArrayLike, dtype: str = "<f4") -> str:
    """Numbers as base64 of a little-endian array; numbers that are not finite become NaN."""
    array = np.asarray(values)
    if dtype == "<f4":
        with np.errstate(over="ignore"):
            array = np.asarray(array, "<f4")
        array = np.where(np.isfinite(array), array, np.float32(np.nan))
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def quantised(values: np.ndarray) -> Tracks:
    """Trajectories in two bytes a number, relative to the range of each.

    Positive trajectories are coded by logarithms: their relative error is at most half of
    log(highest / lowest) / 65534, which no scale shows. Others are coded linearly: their error is
    at most their range / 131068. Both hold up to the rounding of float32.

    Args:
        values: [*cells, frames, bands]; numbers that are not finite are missing.

    Returns:
        The codes, with the range and the kind of each trajectory.
    """
    array = np.asarray(values, float)
    array = np.where(np.abs(array) <= np.finfo(np.float32).max, array, np.nan)
    valid = np.isfinite(array)
    logarithmic = np.asarray(~(valid & (array <= 0)).any((-2, -1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(logarithmic[..., None, None], np.log(array), array)
    low = np.where(valid, scaled, np.inf).min((-2, -1))
    high = np.where(valid, scaled, -np.inf).max((-2, -1))
    low, high = (np.where(low <= high, end, 0).astype("<f4") for end in (low, high))
    # The codes refer to the ends as they are stored.
    first, span = low.astype(float), high.astype(float) - low
    places = (scaled - first[..., None, None]) / np.where(span > 0, span, 1)[..., None, None]
    codes = np.clip(np.rint(np.where(valid, places, 0) * TOP), 0, TOP)
    return {
        "codes": packed(np.where(valid, codes, MISSING), "<u2"),
        "low": packed(low),
        "high": packed(high),
        "logarithmic": packed(logarithmic, "u1"),
    }


def restored(tracks: Tracks, shape: tuple[int, ...]) -> np.ndarray:
    """The trajectories that a page shows for codes; shape is [*cells, frames, bands]."""
    codes = np.frombuffer(base64.b64decode(tracks["codes"]), "<u2").reshape(shape)
    texts = (tracks["low"], "<f4"), (tracks["high"], "<f4"), (tracks["logarithmic"], "u1")
    low, high, logarithmic = (
        np.frombuffer(base64.b64decode(text), dtype).reshape(*shape[:-2], 1, 1).astype(float)
        for text, dtype in texts
    )
    scaled = low + codes / TOP * (high - low)
    values = np.where(logarithmic > 0, np.exp(scaled * logarithmic), scaled)
    return np.where(codes == MISSING, np.nan, values)
