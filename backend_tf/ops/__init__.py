"""The operators of the regenerated graph: one literal table, ONNX name -> function of the trace and the step."""

from __future__ import annotations

from collections.abc import Callable

from ..fusion import EPILOGUE
from ..layout import Laid
from ..program import Step
from ..trace import Trace
from . import compute, curves, elementwise, epilogue, movement, pooling, tail, transposed

Op = Callable[[Trace, Step], Laid | tuple[Laid, ...]]
"""What it computes: one value, or several in the order of the step's outputs."""

OPS: dict[str, Op] = {
    # compute layers
    "Conv": compute.conv,
    "ConvTranspose": transposed.conv_transpose,
    "Gemm": compute.gemm,
    "MatMul": compute.matmul,
    # elementwise
    "Add": elementwise.add,
    "Sub": elementwise.subtract,
    "Mul": elementwise.multiply,
    "Div": elementwise.divide,
    "Max": elementwise.maximum,
    "Min": elementwise.minimum,
    "PRelu": elementwise.parametric_relu,
    "Relu": elementwise.relu,
    "Clip": elementwise.clip,
    # pooling
    "MaxPool": pooling.max_pool,
    "AveragePool": pooling.average_pool,
    "GlobalAveragePool": pooling.global_average_pool,
    # movement: the scale passes through
    "Identity": movement.identity,
    "Dropout": movement.identity,
    "Transpose": movement.transpose,
    "Reshape": movement.reshape,
    "Flatten": movement.flatten,
    "Squeeze": movement.squeeze,
    "Unsqueeze": movement.unsqueeze,
    "SpaceToDepth": movement.space_to_depth,
    "DepthToSpace": movement.depth_to_space,
    "Pad": movement.pad,
    "Slice": movement.strided_slice,
    "Tile": movement.tile,
    "Resize": movement.resize,
    "Gather": movement.gather,
    "Concat": movement.concat,
    # functions of one number (L12)
    **curves.CURVES,
    "Pow": curves.power,
    # what stays float (L8)
    "Softmax": tail.softmax,
    "LogSoftmax": tail.log_softmax,
    "ArgMax": tail.arg_max,
    "ArgMin": tail.arg_min,
    "TopK": tail.top_k,
    "ReduceMean": tail.reduce_mean,
    "ReduceSum": tail.reduce_sum,
    "ReduceMax": tail.reduce_max,
    "ReduceSumSquare": tail.reduce_sum_square,
    "LayerNormalization": tail.layer_normalization,
    "InstanceNormalization": tail.instance_normalization,
    "BatchNormalization": tail.batch_normalization,
    "Cast": tail.cast,
}

STEPS: dict[str, Op] = OPS | {EPILOGUE: epilogue.layer_end}
"""All that a program can hold: ONNX operators, and the step that `fusion` puts in, which no file may name."""

__all__ = ["OPS", "STEPS", "Op"]
