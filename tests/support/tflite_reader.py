"""A second reading of TFLite files: what an operator should give of the integers that it read, exactly, before it is rounded.

Written from TFLite's description of quantized operators alone; NumPy, no code of the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from integer_reader import run_operation
from tensorflow.lite.python import schema_py_generated as schema

Array = npt.NDArray[Any]
RESOLVERS = {
    "reference": tf.lite.experimental.OpResolverType.BUILTIN_REF,
    "optimized": tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "xnnpack": tf.lite.experimental.OpResolverType.AUTO,
}
"""The kernels that TFLite has for a CPU; the last are what Python and most phones run."""

OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
EXACT_IN_XNNPACK = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "MUL"}
"""What XNNPACK rounds half to even; it rounds sums of two tensors half up."""
ONCE = {"ADD", "SUB", "FULLY_CONNECTED"}
"""What the reference kernels round once, half away from zero; seen in TensorFlow 2.21."""
ROUNDING = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "ADD", "SUB", "MUL"}


@dataclass(frozen=True)
class Computed:
    """One operator of a run.

    Attributes:
        op: in TFLite.
        name: of its output.
        exact: in units of the output's scale, in front of the rounding, float64, exact.
        unit: of the sum, in units of the output's scale.
        given: what TFLite computed, zero point taken off.
        specified: what its reference kernels give, whose requantization rounds twice: the last bit of the sum, then the rest; or
            once, see `ONCE`.
        lower: smallest integer of the output, with its activation.
        upper: largest one.
    """

    op: str
    name: str
    exact: Array
    unit: float
    given: Array
    specified: Array
    lower: int
    upper: int

    @property
    def expected(self) -> Array:
        """Rounded, ties to even, and saturated."""
        return np.clip(np.rint(self.exact), self.lower, self.upper)

    @property
    def ties(self) -> Array:
        """Where the exact number lies halfway between two integers."""
        return self.exact - np.floor(self.exact) == 0.5

    @property
    def nearly(self) -> Array:
        """Where it is a tie, or becomes one when the last bit of the sum is rounded up: up to one unit of the sum below."""
        below = 0.5 - (self.exact - np.floor(self.exact))
        return (below >= 0) & (below <= self.unit)


def outputs(content: bytes, feeds: Mapping[str, Array], kernels: str) -> dict[str, Array]:
    """The outputs by name, example by example."""
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=RESOLVERS[kernels])
    runner = interpreter.get_signature_runner("serving_default")
    count = len(next(iter(feeds.values())))
    found = [runner(**{name: array[index : index + 1] for name, array in feeds.items()}) for index in range(count)]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def every_layer(content: bytes, feeds: Mapping[str, Array], kernels: str = "reference") -> Iterator[Computed]:
    """Every operator that rounds, for one example, from the integers that TFLite itself fed it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (graph,) = model.subgraphs
    interpreter = tf.lite.Interpreter(
        model_content=_exposed(content) if kernels == "xnnpack" else content,
        experimental_op_resolver_type=RESOLVERS[kernels],
        experimental_preserve_all_tensors=kernels != "xnnpack",
    )
    interpreter.allocate_tensors()
    (signature,) = model.signatureDefs
    places = {one.name.decode(): one.tensorIndex for one in signature.inputs}
    for name, array in feeds.items():
        interpreter.set_tensor(places[name], array[:1])
    interpreter.invoke()
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        op = OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        result = graph.tensors[operator.outputs[0]]
        if op in ROUNDING and result.type == schema.TensorType.INT8:
            yield _computed(interpreter, graph, operator, op)


def _exposed(content: bytes) -> bytes:
    """The same file with every computed tensor as an output: a delegate keeps no others."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (graph,) = model.subgraphs
    computed = [index for operator in graph.operators for index in operator.outputs]
    graph.outputs = np.array(sorted({*graph.outputs, *computed}), np.int32)
    model.signatureDefs = []
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _computed(interpreter: Any, graph: Any, operator: Any, op: str) -> Computed:
    read = [index for index in operator.inputs if index >= 0]
    tensors, arrays = [graph.tensors[index] for index in read], []
    for index, tensor in zip(read, tensors, strict=True):
        point = 0 if tensor.quantization is None or tensor.quantization.zeroPoint is None else int(tensor.quantization.zeroPoint[0])
        arrays.append(interpreter.get_tensor(index).astype(np.int64) - point)
    scales = [_scale(tensor) for tensor in tensors]
    result = graph.tensors[operator.outputs[0]]
    scale, point = _scale(result), int(result.quantization.zeroPoint[0])
    options = operator.builtinOptions
    if op in {"ADD", "SUB"}:
        exact = arrays[0] * (scales[0] / scale) + (1 if op == "ADD" else -1) * arrays[1] * (scales[1] / scale)
        specified, unit = _away(exact), 0.0
    else:
        if op == "MUL":
            sums = arrays[0] * arrays[1]
        elif op == "TRANSPOSE_CONV":
            arrays, scales = [arrays[2], arrays[1], *arrays[3:]], [scales[2], scales[1]]
            sums = _transposed(arrays, options, tuple(result.shape))
        else:
            sums = _sums(op, arrays, options)
        ratio = scales[0] * scales[1] / scale
        exact, unit = sums * ratio, 0.0 if op in ONCE else ratio
        specified = _away(exact) if op in ONCE else rounded_twice(sums, ratio)
    lower, upper = -128 - point, 127 - point
    if options.fusedActivationFunction in (1, 3):
        lower = max(lower, 0)
    if options.fusedActivationFunction == 3:
        upper = min(upper, int(np.floor(6 / scale + 0.5)))
    assert options.fusedActivationFunction in (0, 1, 3)
    given = interpreter.get_tensor(operator.outputs[0]).astype(np.int64) - point
    specified = np.clip(specified, lower, upper).reshape(given.shape)
    return Computed(op, result.name.decode(), exact.reshape(given.shape), unit, given, specified, lower, upper)


def _away(exact: Array) -> Array:
    return np.sign(exact) * np.floor(np.abs(exact) + 0.5)


def rounded_twice(sums: Array, ratio: float) -> Array:
    """`sums * ratio` by a 31-bit multiplier and a shift: the high half of the doubled product, then a shift, each rounded."""
    mantissa, exponent = np.frexp(ratio)
    product = (sums << max(int(exponent), 0)) * int(np.rint(mantissa * 2**31))
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.sign(nudged) * (np.abs(nudged) >> 31)
    shift = max(-int(exponent), 0)
    rest, threshold = high & ((1 << shift) - 1), (((1 << shift) - 1) >> 1) + (high < 0)
    return (high >> shift) + (rest > threshold)


def _scale(tensor: Any) -> float:
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None:
        return 1.0
    (scale,) = quantization.scale
    return float(scale)


def _sums(op: str, arrays: Sequence[Array], options: Any) -> Array:
    x, weights = arrays[:2]
    bias = arrays[2] if len(arrays) > 2 else np.zeros(1, np.int64)
    if op == "FULLY_CONNECTED":
        return x.reshape(-1, weights.shape[1]) @ weights.T + bias
    x = x.transpose(0, 3, 1, 2)
    kernel = weights.transpose(3, 0, 1, 2) if op == "DEPTHWISE_CONV_2D" else weights.transpose(0, 3, 1, 2)
    group = x.shape[1] // kernel.shape[1]
    strides, dilations = [options.strideH, options.strideW], [options.dilationHFactor, options.dilationWFactor]
    attributes = {"kernel_shape": list(kernel.shape[2:]), "strides": strides, "dilations": dilations, "group": group}
    attributes["pads"] = _pads(x.shape[2:], attributes) if options.padding == schema.Padding.SAME else [0, 0, 0, 0]
    return run_operation("Conv", [x, kernel, np.broadcast_to(bias, kernel.shape[:1])], attributes).transpose(0, 2, 3, 1)


def _pads(sizes: Sequence[int], attributes: Mapping[str, Any]) -> list[int]:
    """SAME: as many windows as strides fit, the odd element behind."""
    total = []
    for size, kernel, stride, dilation in zip(
        sizes, attributes["kernel_shape"], attributes["strides"], attributes["dilations"], strict=True
    ):
        total.append(max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0))
    return [*(one // 2 for one in total), *(one - one // 2 for one in total)]


def _transposed(arrays: Sequence[Array], options: Any, shape: tuple[int, ...]) -> Array:
    """The gradient of a convolution of an image of the result's size."""
    kernel, x = arrays[1].transpose(3, 0, 1, 2), arrays[0].transpose(0, 3, 1, 2)
    attributes = {"kernel_shape": list(kernel.shape[2:]), "strides": [options.strideH, options.strideW], "dilations": [1, 1]}
    before = _pads(shape[1:3], attributes)[:2] if options.padding == schema.Padding.SAME else [0, 0]
    room = [
        (length - 1) * stride + size
        for length, stride, size in zip(x.shape[2:], attributes["strides"], attributes["kernel_shape"], strict=True)
    ]
    beyond = [max(start + size - length, 0) for start, size, length in zip(before, shape[1:3], room, strict=True)]
    behind = [length + more - start - size for length, more, start, size in zip(room, beyond, before, shape[1:3], strict=True)]
    bias = arrays[2] if len(arrays) > 2 else np.zeros(1, np.int64)
    y = run_operation("ConvTranspose", [x, kernel], attributes | {"group": 1, "pads": [*before, *behind], "output_padding": beyond})
    return y.transpose(0, 2, 3, 1) + bias
