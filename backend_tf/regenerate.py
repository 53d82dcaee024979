"""From a lowered float ONNX model and its quantizer graph to a Keras model (R1)."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir

from ..ir import ModelError, QuantizerGraph, UnsupportedError
from .model import RegeneratedModel
from .ops import OPS
from .program import Program, parse, skeleton


def regenerate(
    model: onnx_ir.Model, graph: QuantizerGraph | None = None, log2_thresholds: Mapping[str, float] | None = None
) -> RegeneratedModel:
    """The model as a trainable Keras model.

    Args:
        model: lowered float model of opset 21; it is not changed.
        graph: its quantizers with their exponents (or with `log2_thresholds` to decide them), or None for a float model.
        log2_thresholds: `{share group: log2_t}`, the real thresholds where they are known.

    Returns:
        A `keras.Model` with the quantizers on, where there are any.

    Raises:
        UnsupportedError: an operator, or a use of one, that has no counterpart here; the message names it and its node.
        ModelError: a quantizer on a value the model does not have, an undecided quantizer, a threshold of another exponent, or
            shapes that do not fit.
    """
    if graph is not None and not graph.decided:
        graph = graph.decide(log2_thresholds or {})
    quantized = frozenset[str]() if graph is None else frozenset(graph.by_value())
    program = parse(model, quantized)
    _check(program, graph)
    data, arrays = skeleton(model, quantized)
    regenerated = RegeneratedModel(data, None if graph is None else graph.to_json(), True, arrays, log2_thresholds)
    regenerated.dry_run()
    return regenerated


def _check(program: Program, graph: QuantizerGraph | None) -> None:
    for step in program.steps:
        if step.op not in OPS:
            raise UnsupportedError(
                f"node {step.name!r}: {step.op} has no counterpart in the regenerated TensorFlow graph; "
                f"one of {', '.join(sorted(OPS))} is expected. Received: {step.op}"
            )
    known = {*program.inputs, *program.weights, *(name for step in program.steps for name in step.outputs)}
    for quantizer in graph.quantizers if graph is not None else ():
        if quantizer.value not in known:
            raise ModelError(f"quantizer {quantizer.id!r} sits on {quantizer.value!r}, which the model does not have")
    for name in program.outputs:
        if name not in known:
            raise ModelError(f"nothing computes the output {name!r}")
