"""Numbers, settings and places on a strip, as the report shows them."""

from __future__ import annotations

import json
import math

from causal_sgd.studies import Verdict

__all__ = ["gauge", "number", "setting", "size"]

MINUS = "\N{MINUS SIGN}"


def number(value: float) -> str:
    """Four digits, with typographic signs."""
    if not math.isfinite(value):
        return {"inf": "∞", "-inf": f"{MINUS}∞"}.get(str(value), "not a number")
    return f"{value:.4g}".replace("-", MINUS)


def gauge(verdict: Verdict) -> dict[str, float | None]:
    """Start and width of the interval and place of the number, in per cent of a strip.

    The place is None for NaN.
    """
    low, high, value = verdict.claim.low, verdict.claim.high, verdict.measured
    if math.isfinite(low) and math.isfinite(high):
        start, end = 25.0, 75.0
        place = 25 + 50 * (value - low) / ((high - low) or max(abs(low), 1) * 1e-3)
    else:  # with an open end, distances from the closed one are compressed
        bound, sign = (low, 1) if math.isfinite(low) else (high, -1)
        distance = sign * (value - bound) / (abs(bound) or 1)
        share = 1.0 if math.isinf(distance) else abs(distance) / (1 + abs(distance))
        place = 25 + (math.copysign(share, distance) * (72 if distance > 0 else 23))
        start, end = 25.0, 100.0
        if sign < 0:
            start, end, place = 0.0, 75.0, 100 - place
    return {
        "start": start,
        "width": end - start,
        "place": None if math.isnan(value) else min(max(place, 2), 98),
    }


def setting(value: object) -> str:
    """A setting as Python writes it, without quotes around a string."""
    if isinstance(value, tuple):
        return ", ".join(map(setting, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def size(count: int) -> str:
    """The size of a file in kB or MB, which are powers of ten."""
    return f"{max(count / 1e3, 1):.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
