"""Argument checks: errors of one line that name the argument, the value and what is allowed.

Traced values pass unchecked, and nothing branches on them. Everything concrete is checked before
anything is compiled. The package does not import jax, so that the command line and the figures can
check names quickly.
"""

from causal_sgd.checks._numbers import (
    angle,
    floating,
    integer,
    number,
    probabilities,
    record,
    representable,
    whole,
)
from causal_sgd.checks._objects import (
    choice,
    flags,
    function,
    instance,
    key,
    made_of,
    spelled,
    transformation,
    world_factory,
)
from causal_sgd.checks._places import Place, Url, path, place
from causal_sgd.checks._values import concrete, is_tracing, is_zero, unmasked

__all__ = [
    "Place",
    "Url",
    "angle",
    "choice",
    "concrete",
    "flags",
    "floating",
    "function",
    "instance",
    "integer",
    "is_tracing",
    "is_zero",
    "key",
    "made_of",
    "number",
    "path",
    "place",
    "probabilities",
    "record",
    "representable",
    "spelled",
    "transformation",
    "unmasked",
    "whole",
    "world_factory",
]
