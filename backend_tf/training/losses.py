"""What a training makes small: cross-entropy with labels, distance to the float model, or a loss of one's own.

Every loss gives a sum over the rows of its batch, not a mean: the loop divides by the *global* batch, so that gradients summed over
replicas are those of the whole batch (T3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import DataError, UsageError
from ..model import RegeneratedModel

Tensors = Mapping[str, tf.Tensor]

LOSSES: Final = ("labels", "distill")

_FLOOR: Final = 1e-12
"""Keeps the relative error of an output that is all zero finite."""


@dataclass(frozen=True)
class Head:
    """One output of the network.

    Attributes:
        output: its name.
        logits: the value in front of its Softmax, else the output itself.
        teacher_logits: the same value in the float model.
        classes: how many classes the output gives a score each, or None where it is no `[n, classes]`.
    """

    output: str
    logits: str
    teacher_logits: str
    classes: int | None


@dataclass(frozen=True)
class Seen:
    """What a loss may look at.

    Attributes:
        outputs: outputs and logits of the network by name.
        labels: int64 [n], or None.
        teacher: outputs and logits of the float model, or None where it does not run.
    """

    outputs: Tensors
    labels: tf.Tensor | None
    teacher: Tensors | None


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs.

    Attributes:
        name: labels, distill, or the name of a function.
        heads: outputs of the network.
        of: the loss summed over the rows, float32 scalar.
        needs_labels: whether batches must have labels.
        needs_teacher: whether the float model must run beside.
        classes: number of classes that labels are checked against, or None.
        scored: the one output whose classes are counted for accuracy and agreement, or None.
    """

    name: str
    heads: tuple[Head, ...]
    of: Callable[[Seen], tf.Tensor]
    needs_labels: bool
    needs_teacher: bool
    classes: int | None
    scored: Head | None


def class_heads(heads: tuple[Head, ...]) -> tuple[Head, ...]:
    """The outputs that are class scores: those of a Softmax; without any the only output, where it is `[n, classes]`.

    So boxes `[n, 4]` beside a classifier are no classes, and logits of a classifier without a Softmax are.
    """
    shaped = tuple(head for head in heads if head.classes is not None)
    return tuple(head for head in shaped if head.logits != head.output) or (shaped if len(heads) == 1 else ())


def heads_of(model: RegeneratedModel, teacher: RegeneratedModel | None = None) -> tuple[Head, ...]:
    """Describes the outputs of a network; it is run in float on one example of zeros for their shapes.

    Args:
        model: the network.
        teacher: the float model beside it, if any.
    """
    inputs = model.program.inputs.items()
    feeds = {name: tf.zeros([shape[0] or 1, *shape[1:]], tf.as_dtype(dtype)) for name, (shape, dtype) in inputs}
    found = model.forward(feeds, quantized=False, also=model.logit_names)
    rows = zip(model.program.outputs, model.logit_names, (teacher or model).logit_names, strict=True)
    return tuple(Head(name, own, other, _classes(tuple(found[name].shape))) for name, own, other in rows)


def make_loss(
    loss: str | Callable[..., Any], heads: tuple[Head, ...], *, temperature: float = 1.0, label_smoothing: float = 0.0
) -> Loss:
    """A loss by name, or from a Keras loss or a function.

    - `labels`: softmax cross-entropy of the one output with class scores, from its logits; where no output is known to have them
      (`class_heads`), of the only one `[n, classes]`.
    - `distill`: no labels. For outputs with class scores (`class_heads`) `T^2 * KL(softmax(f / T) || softmax(q / T))` with the
      float model's logits `f` and the temperature `T`; for others the squared error relative to the float output's mean square.
      Outputs add up.
    - a Keras loss or a function of (labels, outputs): the outputs as the ONNX graph has them, one tensor, or a dict by name where
      there are several. It returns one loss per row (further axes are averaged), or their mean as a scalar.

    Args:
        loss: which one.
        heads: outputs of the network.
        temperature: of `distill`, above 0.
        label_smoothing: of `labels`, in [0, 1).

    Raises:
        UsageError: an unknown name, a number outside its range, or `labels` for a network without exactly one output of scores.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise UsageError(f"the distillation temperature must be a number above 0. Received: {temperature}")
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"the label smoothing must be a number in [0, 1). Received: {label_smoothing}")
    known = class_heads(heads)
    only = known[0] if len(known) == 1 else None
    if loss == "distill":
        return Loss("distill", heads, lambda seen: _distill(heads, seen, temperature), False, True, None, only)
    if loss == "labels":
        scores = known or tuple(head for head in heads if head.classes is not None)
        if len(scores) != 1:
            raise UsageError(
                "training with labels needs exactly one output with a score for each class, [n, classes]; without one, distil "
                f"(--distill) or give a loss of your own in Python. Received: {', '.join(head.output for head in heads)}"
            )
        head = scores[0]
        return Loss("labels", heads, lambda seen: _cross_entropy(head, seen, label_smoothing), True, False, head.classes, head)
    if not callable(loss):
        raise UsageError(f"the loss must be one of {', '.join(LOSSES)} or a function. Received: {loss!r}")
    name = str(getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__))
    per_row = loss.call if isinstance(loss, keras.losses.Loss) else loss
    return Loss(name, heads, lambda seen: _own(per_row, heads, seen), False, False, None, only)


def check_labels(labels: npt.NDArray[Any], classes: int, what: str) -> None:
    """Refuses labels that are no classes of the network.

    Args:
        labels: integers [n].
        classes: how many classes there are.
        what: where the labels come from, for the message.

    Raises:
        DataError: the first label outside `0 .. classes - 1`.
    """
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise DataError(
            f"{what}: labels 0..{classes - 1} are expected ({classes} classes). Received: label {labels[int(np.argmax(wrong))]}"
        )


def scores(tensor: tf.Tensor) -> tf.Tensor:
    """Class scores as [n, classes], whatever axes of length 1 stand between."""
    return tf.reshape(tensor, [tf.shape(tensor)[0], -1])


def _classes(shape: tuple[int, ...]) -> int | None:
    long = [dim for dim in shape[1:] if dim != 1]
    return long[0] if len(long) == 1 and long[0] > 1 else None


def _cross_entropy(head: Head, seen: Seen, smoothing: float) -> tf.Tensor:
    logits = scores(seen.outputs[head.logits])
    if smoothing == 0:
        return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=seen.labels, logits=logits))
    assert head.classes is not None
    targets = tf.one_hot(seen.labels, head.classes) * (1 - smoothing) + smoothing / head.classes
    return tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits))


def _distill(heads: tuple[Head, ...], seen: Seen, temperature: float) -> tf.Tensor:
    assert seen.teacher is not None
    total, scored = tf.zeros([], tf.float32), class_heads(heads)
    for head in heads:
        if head not in scored:
            total += _relative_error(seen.teacher[head.output], seen.outputs[head.output])
        else:
            teacher = scores(seen.teacher[head.teacher_logits]) / temperature
            student = scores(seen.outputs[head.logits]) / temperature
            difference = tf.nn.log_softmax(teacher) - tf.nn.log_softmax(student)
            total += temperature**2 * tf.reduce_sum(tf.nn.softmax(teacher) * difference)
    return total


def _relative_error(expected: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    axes = list(range(1, len(expected.shape)))
    error = tf.reduce_mean(tf.square(found - expected), axes)
    return tf.reduce_sum(error / (tf.reduce_mean(tf.square(expected), axes) + _FLOOR))


def _own(function: Callable[..., Any], heads: tuple[Head, ...], seen: Seen) -> tf.Tensor:
    outputs = {head.output: seen.outputs[head.output] for head in heads}
    found = function(seen.labels, outputs if len(outputs) > 1 else next(iter(outputs.values())))
    found = tf.cast(tf.convert_to_tensor(found), tf.float32)
    first = next(iter(outputs.values()))
    rows = tf.shape(first)[0]
    if not found.shape.rank:
        return found * tf.cast(rows, tf.float32)
    if None not in (found.shape[0], first.shape[0]) and found.shape[0] != first.shape[0]:
        raise UsageError(
            f"the loss must return one number for each of the {first.shape[0]} rows of its batch, or their mean. "
            f"Received: shape {found.shape.as_list()}"
        )
    return tf.reduce_sum(tf.reduce_mean(tf.reshape(found, [rows, -1]), axis=1))
