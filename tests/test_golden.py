"""Golden integers: three tiny networks, each in both contracts, worked out twice without any code of the project.

`FRACTIONS` below restates the formulas of numerics Q1-Q7, L1, L2, L4, L6 and L11 in rational numbers; what it gives is also
frozen as literals. Quantizer, oracle, onnxruntime and TensorFlow are compared with the literals by `==`, so that they cannot be
wrong together. Calibration is `max`, for weights too, on the very inputs that are run; it goes layer after layer (C4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.ir import constant
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.check import tensorflow_runner
from tqt_onnx.verbs.quantize import quantize
from tqt_onnx.verify import Oracle, tapped_runner

Exact = Any
"""A NumPy array of `Fraction` objects; NumPy only indexes them."""

# --- the formulas, in rational numbers


def exact(numbers: Any) -> Exact:
    array = np.asarray(numbers, np.float32)
    return np.array([Fraction(float(x)) for x in array.ravel()], dtype=object).reshape(array.shape)


def two_to(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def exponent_of(values: Iterable[Exact], bits: int, *, signed: bool) -> int:
    """Q4 with `t = max|x|` (unsigned: `max x`): the smallest k with `t <= 2^k`, less the bits."""
    t = max(abs(x) if signed else x for array in values for x in array.ravel())
    k = 0
    while two_to(k) < t:
        k += 1
    while two_to(k - 1) >= t:
        k -= 1
    return k - (bits - 1 if signed else bits)


def integers(values: Exact, e: int, bits: int, *, signed: bool, upper: int | None = None) -> Exact:
    """Q1, Q2, Q3, Q5. Python rounds a Fraction to the nearest, halves to even."""
    n, p = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    p = p if upper is None else min(p, upper)
    return np.array([min(max(round(x / two_to(e)), n), p) for x in values.ravel()], dtype=object).reshape(values.shape)


def reals(numbers: Exact, e: int) -> Exact:
    return numbers * two_to(e)


class Fractions:
    """Quantizes value after value and remembers exponents and integers."""

    def __init__(self) -> None:
        self.exponents: dict[str, int] = {}
        self.integers: dict[str, Exact] = {}

    def at(self, name: str, values: Exact, e: int, bits: int, *, signed: bool, upper: int | None = None) -> Exact:
        self.exponents[name] = e
        self.integers[name] = integers(values, e, bits, signed=signed, upper=upper)
        return reals(self.integers[name], e)

    def activation(self, name: str, values: Exact, *, signed: bool = True, bits: int = 8) -> Exact:
        return self.at(name, values, exponent_of([values], bits, signed=signed), bits, signed=signed)

    def relu6(self, name: str, values: Exact) -> Exact:
        """L2: the threshold is that of the clipped values; the bound is an integer, put on after rounding."""
        clipped = np.array([min(max(x, Fraction(0)), Fraction(6)) for x in values.ravel()], dtype=object)
        e = exponent_of([clipped], 8, signed=False)
        self.integers[f"{name}__r"] = integers(values, e, 8, signed=False)
        return self.at(name, values, e, 8, signed=False, upper=round(6 / two_to(e)))

    def weight(self, name: str, values: Exact, *, signed: bool = True) -> Exact:
        """Q7: where the maximum is a power of two, the next exponent if that has the smaller squared error."""
        e = exponent_of([values], 8, signed=signed)
        largest = max(abs(x) for x in values.ravel())
        if largest.numerator & (largest.numerator - 1) == 0 and largest.denominator & (largest.denominator - 1) == 0:

            def error(at: int) -> Fraction:
                gaps = values - reals(integers(values, at, 8, signed=signed), at)
                return sum((gap * gap for gap in gaps.ravel()), Fraction(0))

            e = e + 1 if error(e + 1) < error(e) else e
        return self.at(name, values, e, 8, signed=signed)

    def layer(self, contract: str, name: str, x: Exact, product: Any, w: Exact, bias: Sequence[float], value: str) -> Exact:
        """The sum of a layer with its bias, before the last rounding: L1 (two roundings to 16 bits) or L11 (int32 bias).

        `product(x, w)` is the exact sum; its channels are along axis 1. `value` is the input, by name.
        """
        shape = (-1,) + (1,) * (len(x.shape) - 2)
        b = exact(bias)
        if contract == "layer32":
            e = self.exponents[value] + self.exponents[f"{name}_w"]
            return product(x, w) + self.at(f"{name}_b", b, e, 32, signed=True).reshape(shape)
        total = product(x, w)
        e = exponent_of([total, b], 16, signed=True)  # the two share one threshold
        return self.at(f"{name}__acc", total, e, 16, signed=True) + self.at(f"{name}_b", b, e, 16, signed=True).reshape(shape)


def dense(x: Exact, w: Exact) -> Exact:
    return x @ w


def convolution(x: Exact, w: Exact, *, pad: int = 0) -> Exact:
    """NCHW, stride 1: written out."""
    n, c, height, width = x.shape
    padded = np.full((n, c, height + 2 * pad, width + 2 * pad), Fraction(0), dtype=object)
    padded[:, :, pad : pad + height, pad : pad + width] = x
    k = w.shape[2]
    out = np.empty((n, w.shape[0], height + 2 * pad - k + 1, width + 2 * pad - k + 1), dtype=object)
    for image, channel, i, j in np.ndindex(*out.shape):
        window = padded[image, :, i : i + k, j : j + k]
        out[image, channel, i, j] = sum((a * b for a, b in zip(window.ravel(), w[channel].ravel(), strict=True)), Fraction(0))
    return out


# --- the three networks


def proto(nodes: list[Any], constants: dict[str, Any], shape: Sequence[int], outputs: Sequence[int]) -> onnx_ir.Model:
    graph = helper.make_graph(
        nodes,
        "golden",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *outputs])],
        [
            numpy_helper.from_array(np.asarray(a, np.int64 if name == "shape" else np.float32), name)
            for name, a in constants.items()
        ],
    )
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def conv_node(inputs: list[str], output: str, kernel: int, pad: int = 0) -> Any:
    attributes = {"kernel_shape": [kernel] * 2, "strides": [1, 1], "dilations": [1, 1], "pads": [pad] * 4, "group": 1}
    return helper.make_node("Conv", inputs, [output], name=output, **attributes)


# (i) y = relu(x w + b)
DENSE_X = [
    [1.0, -2.0, 0.3],
    [4.0, 3.9, -3.7],
    [0.046875, 0.078125, -0.015625],
    [-0.375, 0.21875, -1.84375],
    [0.0, 0.3125, -1.40625],
]
DENSE_W = [[1.8, -1.25], [1.7, 0.875], [-1.9, 0.0078125]]
DENSE_B = [0.1, 0.7]


def dense_model() -> onnx_ir.Model:
    nodes = [helper.make_node("Gemm", ["x", "d_w", "d_b"], ["d"], name="d"), helper.make_node("Relu", ["d"], ["y"], name="y")]
    return proto(nodes, {"d_w": DENSE_W, "d_b": DENSE_B}, [3], [2])


def dense_fractions(contract: str) -> Fractions:
    f = Fractions()
    x = f.activation("x__input", exact(DENSE_X))
    total = f.layer(contract, "d", x, dense, f.weight("d_w", exact(DENSE_W)), DENSE_B, "x__input")
    f.activation("y", np.maximum(total, Fraction(0)), signed=False)
    return f


# (ii) a = relu(conv1x1(x)); y = a + conv3x3(a): the identity shortcut gets a rescale
RESIDUAL_X = [[[[0.5, -1.0], [1.9, 0.25]], [[-0.3, 0.8], [0.0, -1.1]]], [[[0.1, 0.2], [-0.4, 1.0]], [[1.5, -1.75], [0.6, 0.05]]]]
RESIDUAL_W1 = [[[[0.75]], [[-0.4]]], [[[0.6]], [[1.3]]]]
RESIDUAL_B1 = [0.1, 0.35]
RESIDUAL_W3 = [
    [[[0.1, -0.2, 0.3], [0.4, 0.5, -0.6], [0.7, -0.8, 0.9]], [[-0.15, 0.25, 0.0], [1.0, -0.35, 0.45], [0.05, 0.2, -0.1]]],
    [[[-0.5, 0.5, 0.25], [-0.25, 0.125, 0.0625], [0.3, 0.3, 0.3]], [[0.9, -0.9, 0.6], [-0.6, 0.3, -0.3], [0.2, -0.2, 0.1]]],
]
RESIDUAL_B3 = [-0.45, 0.05]


def residual_model() -> onnx_ir.Model:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="t", perm=[0, 3, 1, 2]),
        conv_node(["t", "c_w", "c_b"], "c", 1),
        helper.make_node("Relu", ["c"], ["a"], name="a"),
        conv_node(["a", "k_w", "k_b"], "k", 3, pad=1),
        helper.make_node("Add", ["a", "k"], ["y"], name="y"),
    ]
    constants = {"c_w": RESIDUAL_W1, "c_b": RESIDUAL_B1, "k_w": RESIDUAL_W3, "k_b": RESIDUAL_B3}
    return proto(nodes, constants, [2, 2, 2], [2, 2, 2])


def residual_fractions(contract: str) -> Fractions:
    f = Fractions()
    x = f.activation("x__input", exact(RESIDUAL_X)).transpose(0, 3, 1, 2)
    f.integers["t"] = f.integers["x__input"].transpose(0, 3, 1, 2)
    total = f.layer(contract, "c", x, convolution, f.weight("c_w", exact(RESIDUAL_W1)), RESIDUAL_B1, "x__input")
    a = f.activation("a", np.maximum(total, Fraction(0)), signed=False)

    def padded(x: Exact, w: Exact) -> Exact:
        return convolution(x, w, pad=1)

    total = f.layer(contract, "k", a, padded, f.weight("k_w", exact(RESIDUAL_W3)), RESIDUAL_B3, "a")
    e = exponent_of([total, a], 8, signed=True)  # L4: both operands share one threshold
    operands = f.at("k", total, e, 8, signed=True), f.at("a__to__y", a, e, 8, signed=True)
    f.activation("y", operands[0] + operands[1])
    return f


# (iii) dense(flatten(averagepool2x2(relu6(conv1x1(x)))))
POOL_X = [
    [[[3.0], [-1.0], [0.5], [0.6]], [[2.0], [0.9], [1.1], [-0.2]]],
    [[[0.0], [0.1], [3.5], [2.2]], [[0.3], [0.7], [1.6], [-3.9]]],
]
POOL_W = [[[[2.4]]], [[[-1.1]]]]
POOL_B = [0.3, 1.7]
POOL_D = [[0.5, -0.25, 1.0], [0.3, 0.9, -0.6], [-0.75, 0.1, 0.2], [0.8, -1.0, 0.35]]
POOL_DB = [0.01, -2.5, 0.6]


def pool_model() -> onnx_ir.Model:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="t", perm=[0, 3, 1, 2]),
        conv_node(["t", "c_w", "c_b"], "c", 1),
        helper.make_node("Clip", ["c", "zero", "six"], ["r"], name="r"),
        helper.make_node("AveragePool", ["r"], ["m"], name="m", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]),
        helper.make_node("Reshape", ["m", "shape"], ["f"], name="f"),
        helper.make_node("Gemm", ["f", "y_w", "y_b"], ["y"], name="y"),
    ]
    constants = {"c_w": POOL_W, "c_b": POOL_B, "zero": 0.0, "six": 6.0, "shape": [-1, 4], "y_w": POOL_D, "y_b": POOL_DB}
    return proto(nodes, constants, [2, 4, 1], [3])


def pool_fractions(contract: str) -> Fractions:
    f = Fractions()
    x = f.activation("x__input", exact(POOL_X)).transpose(0, 3, 1, 2)
    f.integers["t"] = f.integers["x__input"].transpose(0, 3, 1, 2)
    total = f.layer(contract, "c", x, convolution, f.weight("c_w", exact(POOL_W)), POOL_B, "x__input")
    r = f.relu6("r", total)
    quarter = f.weight("m__reciprocal", exact(np.full((2, 1, 2, 2), 0.25)), signed=False)
    mean = np.empty((2, 2, 1, 2), dtype=object)
    for image, channel, _, j in np.ndindex(*mean.shape):
        mean[image, channel, 0, j] = (r[image, channel, :, 2 * j : 2 * j + 2] * quarter[channel, 0]).sum()
    flat = f.activation("m", mean, signed=False).reshape(2, 4)  # L6
    f.integers["f"] = f.integers["m"].reshape(2, 4)
    total = f.layer(contract, "y", flat, dense, f.weight("y_w", exact(POOL_D)), POOL_DB, "m")
    f.activation("y", total)
    return f


# --- what they give, frozen: integers common to both contracts, and those of each

EXPONENTS: dict[str, dict[str, int]] = {
    "dense layer16": {"x__input": -5, "d_w": -6, "d__acc": -10, "d_b": -10, "y": -3},
    "dense layer32": {"x__input": -5, "d_w": -6, "d_b": -11, "y": -3},
    "residual layer16": {
        "x__input": -6,
        "c_w": -6,
        "c__acc": -14,
        "c_b": -14,
        "a": -7,
        "k_w": -7,
        "k__acc": -13,
        "k_b": -13,
        "k": -5,
        "a__to__y": -5,
        "y": -5,
    },
    "residual layer32": {"x__input": -6, "c_w": -6, "c_b": -12, "a": -7, "k_w": -7, "k_b": -14, "k": -5, "a__to__y": -5, "y": -5},
    "pool layer16": {
        "x__input": -5,
        "c_w": -5,
        "c__acc": -11,
        "c_b": -11,
        "r": -5,
        "m__reciprocal": -9,
        "m": -6,
        "y_w": -7,
        "y__acc": -13,
        "y_b": -13,
        "y": -5,
    },
    "pool layer32": {"x__input": -5, "c_w": -5, "c_b": -10, "r": -5, "m__reciprocal": -9, "m": -6, "y_w": -7, "y_b": -13, "y": -5},
}

INTEGERS: dict[str, dict[str, Any]] = {
    "dense": {
        "x__input": [[32, -64, 10], [127, 125, -118], [2, 2, 0], [-12, 7, -59], [0, 10, -45]],
        "d_w": [[115, -80], [109, 56], [-122, 0]],
    },
    "dense layer16": {
        "d__acc": [[-2258, -3072], [21313, -1580], [224, -24], [3290, 676], [3290, 280]],
        "d_b": [102, 717],
        "y": [[0, 0], [167, 0], [3, 5], [26, 11], [26, 8]],
    },
    "dense layer32": {
        "d_b": [205, 1434],
        "y": [[0, 0], [167, 0], [3, 5], [27, 11], [27, 8]],
    },
    "residual": {
        "x__input": [[[[32, -64], [122, 16]], [[-19, 51], [0, -70]]], [[[6, 13], [-26, 64]], [[96, -112], [38, 3]]]],
        "t": [[[[32, 122], [-19, 0]], [[-64, 16], [51, -70]]], [[[6, -26], [96, 38]], [[13, 64], [-112, 3]]]],
        "c_w": [[[[48]], [[-26]]], [[[38]], [[83]]]],
        "a": [[[[113, 183], [0, 70]], [[0, 231], [155, 0]]], [[[11, 0], [248, 67]], [[86, 180], [0, 98]]]],
        "k_w": [
            [[[13, -26, 38], [51, 64, -77], [90, -102, 115]], [[-19, 32, 0], [127, -45, 58], [6, 26, -13]]],
            [[[-64, 64, 32], [-32, 16, 8], [38, 38, 38]], [[115, -115, 77], [-77, 38, -38], [26, -26, 13]]],
        ],
        "k": [[[[22, -13], [-31, 41]], [[-12, 30], [74, -63]]], [[[-37, 27], [22, 18]], [[21, 20], [12, -27]]]],
        "a__to__y": [[[[28, 46], [0, 18]], [[0, 58], [39, 0]]], [[[3, 0], [62, 17]], [[22, 45], [0, 24]]]],
        "y": [[[[50, 33], [-31, 59]], [[-12, 88], [113, -63]]], [[[-34, 27], [84, 35]], [[43, 65], [12, -3]]]],
    },
    "residual layer16": {
        "c__acc": [
            [[[12800, 21760], [-8952, 7280]], [[-16384, 23856], [14044, -23240]]],
            [[[-200, -11648], [30080, 6984]], [[5228, 17296], [-22592, 6772]]],
        ],
        "c_b": [1638, 5734],
        "k__acc": [
            [[[9310, 435], [-4174, 14134]], [[-3438, 7390], [18662, -16450]]],
            [[[-5796, 10708], [9432, 8398]], [[4924, 4644], [2727, -7327]]],
        ],
        "k_b": [-3686, 410],
    },
    "residual layer32": {
        "c_b": [410, 1434],
        "k_b": [-7373, 819],
    },
    "pool": {
        "x__input": [[[[96], [-32], [16], [19]], [[64], [29], [35], [-6]]], [[[0], [3], [112], [70]], [[10], [22], [51], [-125]]]],
        "t": [[[[96, -32, 16, 19], [64, 29, 35, -6]]], [[[0, 3, 112, 70], [10, 22, 51, -125]]]],
        "c_w": [[[[77]]], [[[-35]]]],
        "r__r": [
            [[[241, 0, 48, 55], [164, 79, 94, 0]], [[0, 89, 37, 34], [0, 23, 16, 61]]],
            [[[10, 17, 255, 178], [34, 63, 132, 0]], [[54, 51, 0, 0], [43, 30, 0, 191]]],
        ],
        "r": [
            [[[192, 0, 48, 55], [164, 79, 94, 0]], [[0, 89, 37, 34], [0, 23, 16, 61]]],
            [[[10, 17, 192, 178], [34, 63, 132, 0]], [[54, 51, 0, 0], [43, 30, 0, 191]]],
        ],
        "m__reciprocal": [[[[128, 128], [128, 128]]], [[[128, 128], [128, 128]]]],
        "m": [[[[218, 98]], [[56, 74]]], [[[62, 251]], [[89, 96]]]],
        "f": [[218, 98, 56, 74], [62, 251, 89, 96]],
        "y_w": [[64, -32, 127], [38, 115, -77], [-96, 13, 26], [102, -128, 45]],
        "y_b": [82, -20480, 4915],
        "y": [[78, -97, 117], [58, -18, 0]],
    },
    "pool layer16": {
        "c__acc": [
            [[[14784, -4928, 2464, 2926], [9856, 4466, 5390, -924]], [[-6720, 2240, -1120, -1330], [-4480, -2030, -2450, 420]]],
            [[[0, 462, 17248, 10780], [1540, 3388, 7854, -19250]], [[0, -210, -7840, -4900], [-700, -1540, -3570, 8750]]],
        ],
        "c_b": [614, 3482],
        "y__acc": [[19848, -4450, 24926], [14754, 15750, -4819]],
    },
    "pool layer32": {
        "c_b": [307, 1741],
    },
}


NETWORKS = {
    "dense": (dense_model, DENSE_X, dense_fractions),
    "residual": (residual_model, RESIDUAL_X, residual_fractions),
    "pool": (pool_model, POOL_X, pool_fractions),
}

CASES = [(name, contract) for name in NETWORKS for contract in ("layer16", "layer32")]


def golden(name: str, contract: str) -> dict[str, Any]:
    return {**INTEGERS[name], **INTEGERS[f"{name} {contract}"]}


def quantized(name: str, contract: str) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    build, x, _ = NETWORKS[name]
    feeds = {"x": np.asarray(x, np.float32)}
    bits = BitWidths(layer=16 if contract == "layer16" else 32)
    return quantize(build(), feeds, bits=bits, method="max", weight_method="max"), feeds


def tensor(name: str) -> str:
    """The integer tensor of a value; `__r` is one already."""
    return name if name.endswith("__r") else f"{name}__q"


@pytest.mark.parametrize(("name", "contract"), CASES)
def test_the_literals_follow_from_the_formulas(name: str, contract: str) -> None:
    computed = NETWORKS[name][2](contract)
    assert computed.exponents == EXPONENTS[f"{name} {contract}"]
    assert {key: values.tolist() for key, values in computed.integers.items()} == golden(name, contract)


def test_the_networks_reach_what_they_are_for() -> None:
    dense16, dense32 = golden("dense", "layer16"), golden("dense", "layer32")
    assert dense16["y"] != dense32["y"]  # two roundings are not one
    assert dense16["x__input"][1][0] == 127  # 4.0 / 2^-5 = 128 saturates (Q4)
    assert dense16["x__input"][2] == [2, 2, 0]  # 1.5, 2.5 and -0.5 go to even (Q1)
    assert EXPONENTS["residual layer16"]["k_w"] == -7  # 1.0 becomes 127/128: the finer grid is better (Q7)
    assert golden("residual", "layer16")["k_w"][0][1][1][0] == 127
    assert EXPONENTS["pool layer16"]["m__reciprocal"] == -9  # 1/4 is 128/512, not 255/1024 (Q7)
    pool = golden("pool", "layer16")
    assert pool["r__r"] != pool["r"]  # the bound 192 is below 255 (L2)


@pytest.mark.parametrize(("name", "contract"), CASES)
def test_quantize_gives_the_golden_exponents_and_constants(name: str, contract: str) -> None:
    result, _ = quantized(name, contract)
    assert {quantizer.value: quantizer.exponent for quantizer in result.graph.quantizers} == EXPONENTS[f"{name} {contract}"]
    expected = golden(name, contract)
    stored = {key.removesuffix("__q"): value for key, value in result.model.graph.initializers.items() if key.endswith("__q")}
    assert set(stored) == {key for key in expected if key.endswith(("_w", "_b", "__reciprocal"))}
    for key, value in stored.items():
        array = constant(value)
        assert array is not None
        assert array.astype(np.int64).ravel().tolist() == np.ravel(expected[key]).tolist()


@pytest.mark.parametrize("engine", ["oracle", "onnxruntime", "tensorflow"])
@pytest.mark.parametrize(("name", "contract"), CASES)
def test_every_engine_gives_the_golden_integers(name: str, contract: str, engine: str) -> None:
    result, feeds = quantized(name, contract)
    expected = {tensor(key): values for key, values in golden(name, contract).items()}
    if engine == "oracle":
        received = {key: value.integers for key, value in Oracle(result.model).run(feeds).items()}  # type: ignore[union-attr]
    elif engine == "onnxruntime":
        received = dict(tapped_runner(result.model)(feeds))
    else:
        received = dict(tensorflow_runner(result.model)(feeds))
    received = {key: array for key, array in received.items() if key.endswith(("__q", "__r"))}
    constants = {key for key in expected if key.endswith(("_w__q", "_b__q", "__reciprocal__q"))}  # TensorFlow taps them too
    # TensorFlow has no tensor between the rounding and the bound of a relu6, nor a pair behind what only moves elements.
    absent = {"r__r", "t__q", "f__q"} if engine == "tensorflow" else set()
    assert set(expected) - constants - absent <= set(received) <= set(expected)
    for key, array in received.items():
        wanted = np.asarray(expected[key])
        assert array.shape == wanted.shape or key in constants  # a bias has the shape its reader wants
        assert array.ravel().tolist() == wanted.ravel().tolist(), key
