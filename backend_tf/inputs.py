"""What a regenerated network is called with: every input by name, of the graph's shape and type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ..ir import DataError
from .program import Program


def feeds_of(program: Program, inputs: Any) -> dict[str, tf.Tensor]:
    """The inputs by name, with their static shapes.

    Args:
        program: the graph.
        inputs: by name, or in order, or one tensor.

    Raises:
        DataError: other names, another number of inputs, or another shape.
    """
    names = list(program.inputs)
    listed = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    given = inputs if isinstance(inputs, Mapping) else dict(zip(names, listed, strict=False))
    if set(given) != set(names) or (given is not inputs and len(listed) != len(names)):
        raise DataError(f"inputs {names} are expected, as a dict, a list or one tensor. Received: {list(given)}")
    feeds = {}
    for name, (shape, dtype) in program.inputs.items():
        tensor = tf.convert_to_tensor(given[name])
        if not tensor.shape.is_compatible_with(shape):
            raise DataError(f"input {name!r}: shape {shape} is expected. Received: {tuple(tensor.shape)}")
        feeds[name] = tf.cast(tf.ensure_shape(tensor, shape), dtype)
    return feeds
