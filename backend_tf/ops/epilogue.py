"""The step that `fusion` puts in: the end of a layer in one pass."""

from __future__ import annotations

import tensorflow as tf

from ...kernels.epilogue import Rounding, composed, epilogue
from ..layout import Laid
from ..program import Step
from ..trace import Trace


def layer_end(trace: Trace, step: Step) -> Laid:
    """`second(relu(first(x) + addend))`; operator by operator where a layer is computed in float64 (X2) or operands broadcast."""
    x = trace.input(step, 0)
    second = trace.rounding(step.attributes["second"])
    first = None if step.attributes["first"] is None else trace.rounding(step.attributes["first"])
    relu = step.attributes["relu"]
    if not step.given(1):
        return x.like(_rounded(x.tensor, second, first, None, relu))
    addend = trace.input(step, 1)
    if step.attributes["channelwise"]:  # the bias of a convolution
        addend = Laid.plain(tf.reshape(addend.onnx, (-1, *[1] * (x.rank - 2))))
    rank = max(x.rank, addend.rank)
    x, y = x.expanded(rank), addend.expanded(rank)
    return x.like(_rounded(x.tensor, second, first, _as_bias(y.to(x.perm), x.tensor), relu))


def _rounded(x: tf.Tensor, second: Rounding, first: Rounding | None, addend: tf.Tensor | None, relu: bool) -> tf.Tensor:
    fits = addend is None or addend.shape.rank == 1 or addend.shape.as_list() == x.shape.as_list()
    if x.dtype == tf.float32 and fits:
        return epilogue(x, second, first=first, addend=addend if addend is None else tf.cast(addend, tf.float32), relu=relu)
    return composed(x, second, first=first, addend=addend, relu=relu)


def _as_bias(addend: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """As a vector where it is one number for each element of the last axis."""
    *others, last = addend.shape.as_list()
    if all(length == 1 for length in others) and last is not None and last == x.shape[-1]:
        return tf.reshape(addend, [last])
    return addend
