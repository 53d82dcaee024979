"""From a lowered float ONNX model and its quantizer graph to a Keras model (R1)."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir

from ..ir import ModelError, QuantizerGraph, UnsupportedError
from .batch_norm_records import recorded_batch_norms
from .model import MOMENTUM, RegeneratedModel
from .ops import OPS
from .program import Program, parse, skeleton


def regenerate(
    model: onnx_ir.Model,
    graph: QuantizerGraph | None = None,
    log2_thresholds: Mapping[str, float] | None = None,
    *,
    batch_norm_momentum: float = MOMENTUM,
    statistics_frozen: bool = True,
) -> RegeneratedModel:
    """The model as a trainable Keras model.

    Args:
        model: lowered float model of opset 21; it is not changed. Batch norms that `fold-batch-norm` folded into its layers are
            taken out of them again (B2).
        graph: its quantizers with their exponents (or with `log2_thresholds` to decide them), or None for a float model.
        log2_thresholds: `{share group: log2_t}`, the real thresholds where they are known.
        batch_norm_momentum: how much of the moving statistics a training step keeps.
        statistics_frozen: whether training uses the moving statistics as they are; can be set later.

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
    check_program(program, graph)
    data, arrays = skeleton(model, quantized)
    specs, norm_arrays = recorded_batch_norms(model, program)
    regenerated = RegeneratedModel(
        data,
        None if graph is None else graph.to_json(),
        True,
        arrays,
        log2_thresholds,
        specs.to_json(),
        norm_arrays,
        batch_norm_momentum,
        statistics_frozen,
    )
    regenerated.dry_run()
    return regenerated


def check_program(program: Program, graph: QuantizerGraph | None) -> None:
    """Refuses what has no counterpart here, before anything is made.

    Raises:
        UnsupportedError: an operator that is not in the table.
        ModelError: a quantizer, or an output, on a value that nothing computes.
    """
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
