"""Target `hls4ml`: the dialect (H3), settings, and refusals. What hls4ml computes is tested in `tests/handoff`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from batch_norm_networks import Builder
from handoff_networks import NETWORKS, SHAPE, examples, quantized
from onnx import numpy_helper

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import Operation, Step, Tensor
from tqt_onnx.export.hls4ml_project.file import GraphFile
from tqt_onnx.export.hls4ml_project.layout import Held, brought, channels_last, permuted, plain, reshaped
from tqt_onnx.export.hls4ml_project.steps import clipped_bounds, constant_bits, dense_kernel, split_rectifiers
from tqt_onnx.ir import UnsupportedError
from tqt_onnx.verbs.export import export_model, make_source

READ = {"Add", "Concat", "Conv", "MatMul", "Max", "MaxPool", "Min", "Mul", "Pad", "Quant", "Relu", "Reshape", "Sub", "Transpose"}
HELD = ("residual", "depthwise", "leaky", "concat", "tail", "wide")


def written(model: onnx_ir.Model, folder: Path, **more: Any) -> tuple[onnx.ModelProto, dict[str, Any]]:
    tqt_onnx.save(model, folder / "net.q.onnx", force=True)
    export_model(folder / "net.q.onnx", "hls4ml", folder / "net", **more)
    return onnx.load(folder / "net" / "net.onnx"), json.loads((folder / "net" / "config.json").read_text())


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", HELD)
def test_the_dialect(name: str, layer: int, tmp_path: Path) -> None:
    model, config = written(quantized(name, layer), tmp_path)
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    described = {item.name for item in (*graph.input, *graph.output, *graph.value_info)}
    readers = Counter(value for node in graph.node for value in node.input)
    names = [*(node.name for node in graph.node), *constants, *(item.name for item in (*graph.input, *graph.output))]
    assert {node.op_type for node in graph.node} <= READ
    assert max(Counter(item.lower() for item in names).values()) == 1
    assert all(re.fullmatch(r"[A-Za-z]\w*", node.name, re.ASCII) for node in graph.node)
    assert set(readers) | {value for node in graph.node for value in node.output} <= described
    ends = {item.name for item in graph.output}
    for node in graph.node:
        given = attributes(node)
        assert list(node.output) == [node.name] or ends >= set(node.output)
        if node.op_type == "Quant":
            scale, zero, bits = (constants[value] for value in node.input[1:])
            assert scale.shape == zero.shape == bits.shape == () and zero == 0 and np.frexp(scale)[0] == 0.5
            assert [readers[value] for value in node.input[1:]] == [1, 1, 1]
            assert given["rounding_mode"] == b"ROUND" and given["narrow"] == 0 and node.domain == "qonnx.custom_op.general"
        if node.op_type in {"Conv", "MaxPool"}:
            assert node.domain == "qonnx.custom_op.channels_last"
            assert {"kernel_shape", "strides", "pads", "dilations"} <= set(given) and "auto_pad" not in given
            assert set(given["dilations"]) == {1}
    assert not [node for node in graph.node if node.op_type == "Transpose"]
    assert set(config["precisions"]) == {node.name for node in graph.node if node.op_type in {"Conv", "MatMul"}}
    assert config["contract"] == f"layer{layer}" and config["model"] == "net.onnx"


def test_weights_are_the_models_integers_channels_last(tmp_path: Path) -> None:
    source = quantized("residual", 32)
    model, _ = written(source, tmp_path)
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}["a_w_constant"]
    integers = next(value.const_value.numpy() for value in source.graph.initializers.values() if value.name == "a/w__q")
    np.testing.assert_array_equal(stored, np.ldexp(integers.astype(np.float32), -6).transpose(0, 2, 3, 1))


def test_rows_of_a_layer_behind_flatten_follow_the_layout(tmp_path: Path) -> None:
    source = quantized("tail", 32)
    model, _ = written(source, tmp_path)
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}["y_w_constant"]
    integers = next(value.const_value.numpy() for value in source.graph.initializers.values() if value.name == "y/w__q")
    expected = integers.reshape(4, 8, 8, 5).transpose(1, 2, 0, 3).reshape(256, 5)
    np.testing.assert_array_equal(stored, np.ldexp(expected.astype(np.float32), -6))


@pytest.mark.parametrize(("unsigned", "given"), [(False, "fixed<8,4,RND_CONV,SAT>"), (True, "ufixed<8,3,RND_CONV,SAT>")])
def test_the_input_has_the_type_of_its_quantizer(unsigned: bool, given: str, tmp_path: Path) -> None:
    bits = BitWidths(unsigned_input=unsigned)
    data = np.abs(examples(32, 0)) if unsigned else examples(32, 0)
    model = tqt_onnx.quantize(NETWORKS["residual"](), data, bits=bits).model
    _, config = written(model, tmp_path)
    assert config["inputs"] == [{"layer": "x", "name": "x", "type": given}]


def test_accumulators_are_as_wide_as_the_bounds_say(tmp_path: Path) -> None:
    _, config = written(quantized("residual", 32), tmp_path)
    # 161784 < 2^18 on a grid of 2^-11: 19 bits, 8 of them in front of the point
    assert config["precisions"]["conv"] == {"accum": "fixed<19,8>"}
    assert config["precisions"]["Conv_average__pooled"] == {"accum": "fixed<22,7>", "bias": "fixed<22,7>"}  # it has no bias


def test_relu6_is_two_saturating_sums_where_its_bound_is_inside_the_type(tmp_path: Path) -> None:
    model, _ = written(quantized("depthwise", 32), tmp_path)
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    moved = {node.name: node for node in model.graph.node if node.op_type == "Add" and node.name.startswith("relu6")}
    assert list(moved) == ["relu6_upper", "relu6_bounded"]
    assert set(constants["relu6_upper_constant"].ravel()) == {63 / 32} and set(constants["relu6_bounded_constant"].ravel()) == {
        -63 / 32
    }


def test_a_bound_that_the_type_has_anyway_is_not_written(tmp_path: Path) -> None:
    """Images so small that relu6 never bounds: the scale ends below 6."""
    model = tqt_onnx.quantize(NETWORKS["depthwise"](), examples(32, 0) / 64, bits=BitWidths(layer=32)).model
    graph = written(model, tmp_path)[0].graph
    assert [node.name for node in graph.node if node.op_type == "Add"] == ["y_bias"]


def test_what_hls4ml_cannot_share_or_stream_is_said(tmp_path: Path) -> None:
    _, config = written(quantized("concat", 32), tmp_path)
    assert config["latency_only"] == ["Conv_average__pooled"]
    assert list(config["parallel_only"]) == ["right"]
    _, config = written(quantized("depthwise", 32), tmp_path, force=True)
    assert config["latency_only"] == ["dw"] and config["parallel_only"] == {}


def test_a_softmax_is_cut_off_and_golden_vectors_are_the_oracles(tmp_path: Path) -> None:
    tqt_onnx.save(quantized("tail", 16), tmp_path / "net.q.onnx")
    data = examples(9, 3)
    result = export_model(tmp_path / "net.q.onnx", "hls4ml", tmp_path / "net", data=data)
    assert any("cut off" in note and "'p'" not in note and " p;" in note for note in result.notes)
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert config["outputs"] == [{"name": "y", "exponent": -2, "shape": [5]}]
    golden = np.load(tmp_path / "net" / "golden.npz")
    expected = make_source(quantized("tail", 16), "net", None).oracle({"x": data})["y__q"]
    np.testing.assert_array_equal(golden["input:x"], data)
    np.testing.assert_array_equal(golden["output:y"], np.ldexp(expected.astype(np.float32), -2))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("transposed", ["layer 'up'", "ConvTranspose"]),
        ("swish", ["layer 'swish", "Table", "grids of its own"]),
    ],
)
def test_refused_by_name(name: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as error:
        written(quantized(name), tmp_path)
    assert all(word in str(error.value) for word in ["target hls4ml", *words]), error.value
    assert not (tmp_path / "net").exists()


CONSTANTS = {
    "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
    "one": np.array([1]),
    "two": np.array([2]),
    "half": np.full((1, 4, 1, 1), 0.5, np.float32),
    "least": np.array(-0.3, np.float32),
    "most": np.array(0.7, np.float32),
    "places": np.array([0, 2]),
    "weights": np.ones((3, 4, 1, 1), np.float32),
    "scales": np.array([1, 1, 2, 2], np.float32),
}

Nodes = list[tuple[str, list[str], dict[str, Any]]]

REFUSED: dict[str, tuple[Nodes, str]] = {
    "slice": ([("Slice", ["conv", "one", "two", "one"], {})], "Slice"),
    "gather": ([("Gather", ["conv", "places"], {"axis": 1})], "Gather"),
    "resize": (
        [("Resize", ["conv", "", "scales"], {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"})],
        "height and width",
    ),
    "blocks": ([("SpaceToDepth", ["conv"], {"blocksize": 2})], "SpaceToDepth"),
    "edge": ([("Pad", ["conv", "pads"], {"mode": "edge"})], "zeros. Received: edge"),
    "constant maximum": ([("Max", ["conv", "half"], {})], "no constant operand"),
    "repeated operand": (
        [("MaxPool", ["conv"], {"name": "top", "kernel_shape": [8, 8]}), ("Mul", ["conv", "top"], {})],
        "hls4ml repeats none",
    ),
    "dilated pool": ([("MaxPool", ["conv"], {"kernel_shape": [2, 2], "dilations": [2, 2]})], "no dilation"),
}


def _behind_conv(nodes: Nodes, outputs: Sequence[str] = ("y",)) -> onnx_ir.Model:
    """A layer and nodes behind it, the last one of which is called y."""
    net = Builder(3)
    net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    net.layer("Conv", "nchw", "conv", (4, 3, 3, 3), 4, pads=[1] * 4)
    for op, inputs, given in nodes:
        net.op(op, *inputs, **{"name": "y", **given})
    net.constants |= {name: array for name, array in CONSTANTS.items() if any(name in node.input for node in net.nodes)}
    return tqt_onnx.quantize(net.model({"x": SHAPE}, dict.fromkeys(outputs)), examples(8, 0)).model


@pytest.mark.parametrize("name", REFUSED)
def test_each_limit_is_named(name: str, tmp_path: Path) -> None:
    nodes, word = REFUSED[name]
    with pytest.raises(UnsupportedError, match=re.escape(word)) as error:
        written(_behind_conv(nodes), tmp_path)
    assert "target hls4ml: layer" in str(error.value) and not (tmp_path / "net").exists()


def test_an_island_in_the_middle_is_refused(tmp_path: Path) -> None:
    model = _behind_conv([("Softmax", ["conv"], {"name": "soft", "axis": 1}), ("Conv", ["soft", "weights"], {})])
    with pytest.raises(UnsupportedError, match="floating point"):
        written(model, tmp_path)


def test_no_rounding_drops_more_bits_than_there_are(tmp_path: Path) -> None:
    """16 bits are shifted by 19: the types that hls4ml ships read beyond the last of them."""
    net = Builder(5)
    net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    left = net.op("Relu", net.layer("Conv", "nchw", "conv", (4, 3, 3, 3), 4, pads=[1] * 4), name="left")
    right = net.op("Relu", net.layer("Conv", "nchw", "fine", (4, 3, 3, 3), 4, pads=[1] * 4), name="right")
    net.constants["small"] = np.array(2.0**-12, np.float32)
    net.op("Add", left, net.op("Mul", right, "small", name="low"), name="y")
    model = tqt_onnx.quantize(net.model({"x": SHAPE}, {"y": None}), examples(8, 0)).model
    (step,) = [step for step in make_source(model, "net", None).network.steps if step.shift > 16]
    assert step.shift == 19 and not step.operations
    graph = written(model, tmp_path)[0].graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    nodes = {node.name: node for node in graph.node}
    assert nodes["low_quant"].input[0] == "low_wide" and nodes["low_wide"].input[0] == "low__acc_quant"
    assert constants[nodes["low_wide"].input[3]] == 20
    assert constants[nodes["low_wide"].input[1]] == constants[nodes["low__acc_quant"].input[1]]


def test_bounds_on_a_finer_grid_do_not_count_as_dropped_bits(tmp_path: Path) -> None:
    """0.7 in float32 has a grid of 2^-24."""
    nodes: Nodes = [("Clip", ["conv", "least", "most"], {"name": "y"})]
    graph = written(_behind_conv(nodes), tmp_path)[0].graph
    names = [node.name for node in graph.node]
    assert "y_lower" in names and "y_wide" not in names


def test_a_scale_beyond_the_bits_of_an_int_is_refused(tmp_path: Path) -> None:
    def scaled(power: int) -> onnx_ir.Model:
        return tqt_onnx.quantize(NETWORKS["tail"](), examples(32, 0) * np.float32(2.0**power), method="max").model

    tensors = make_source(scaled(20), "net", None).network.tensors.values()
    room = 31 - max(tensor.exponent for tensor in tensors)
    assert written(scaled(20 + room), tmp_path)
    with pytest.raises(UnsupportedError, match=r"at most 2\^31.*Received: 2\^32"):
        written(scaled(21 + room), tmp_path, force=True)


@pytest.mark.parametrize(
    ("nodes", "outputs", "word"),
    [
        (
            [("Transpose", ["conv"], {"name": "r", "perm": [0, 2, 3, 1]}), ("Flatten", ["r"], {})],
            ["r", "y"],
            "output 'y': must be numbers of its own. Received: those of 'r'",
        ),
        (
            [("Relu", ["conv"], {"name": "r"}), ("Flatten", ["x"], {})],
            ["r", "y"],
            "output 'y': must be computed by a layer. Received: input 'x'",
        ),
    ],
)
def test_outputs_that_hls4ml_could_not_tell_apart_are_refused(nodes: Nodes, outputs: list[str], word: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(word)):
        written(_behind_conv(nodes, outputs), tmp_path)


def test_sums_with_zero_and_products_with_one_are_left_out(tmp_path: Path) -> None:
    """hls4ml would remove them together with the rounding behind them."""
    model = quantized("residual", 16).clone()
    for value in model.graph.initializers.values():
        if value.name in {"conv/b__q", "y/b__q"} and value.const_value is not None:
            value.const_value = onnx_ir.tensor(np.zeros_like(value.const_value.numpy()), name=value.name)
    graph = written(model, tmp_path)[0].graph
    sums = [node.name for node in graph.node if node.op_type == "Add"]
    assert sums == ["Add_a", "Add_b", "sum"]
    assert [node.name for node in graph.node if node.op_type == "Quant" and "conv" in node.input[0]][-1] == "relu_quant"


def test_names_become_identifiers_that_differ_in_any_case() -> None:
    file = GraphFile()
    given = ["a/b:0", "A_B_0", "1x", "double", "", "a_b_0_1", "größe", "input"]
    assert [file.identifier(name) for name in given] == ["a_b_0", "A_B_0_1", "t1x", "double_", "t", "a_b_0_1_1", "gr__e", "input_"]


def test_a_transpose_is_written_only_where_elements_move() -> None:
    file = GraphFile()
    held = permuted(Held("x", (1, 8, 8, 3), plain(4)), [0, 3, 1, 2])
    assert held.shape == (1, 3, 8, 8) and held.order == channels_last(4) and held.stored == (1, 8, 8, 3)
    assert brought(file, "a", held, channels_last(4)) is held
    assert brought(file, "b", Held("v", (1, 3, 1, 1), plain(4)), channels_last(4)).name == "b_view"  # a Reshape
    moved = brought(file, "c", held, plain(4))
    assert moved.name == "c_transpose" and moved.stored == (1, 3, 8, 8)
    low = permuted(Held("x", (1, 1, 8, 3), plain(4)), [0, 3, 1, 2])
    assert brought(file, "f", low, plain(4)).name == "f_unsqueezed"
    (node,) = [node for node in file.model([("f_unsqueezed", "y")]).graph.node if node.op_type == "Transpose"]
    assert attributes(node) == {"perm": [0, 2, 1]}
    file = GraphFile()
    flat = reshaped(file, "d", held, (1, 192))
    assert flat.rows is not None
    np.testing.assert_array_equal(flat.rows, np.arange(192).reshape(3, 8, 8).transpose(1, 2, 0).ravel())
    back = brought(file, "e", flat, plain(2))
    assert back.rows is None and back.name == "e_flat"


def _operation(op: str, exponent: int, **attributes: Any) -> Operation:
    return Operation(op, op, None, ("x",), (0,), f"{op}_out", exponent, (None, 4), attributes)


def _tensor(lower: int, upper: int) -> Tensor:
    return Tensor("q", "v", "computed", None, "activation", 8, lower < 0, 0, lower, upper, (None, 4))


@pytest.mark.parametrize(
    ("operations", "shift", "tensor", "expected"),
    [
        ([], 3, (-128, 127), (-128, 127)),
        ([_operation("Relu", -3)], 3, (-128, 127), (0, 127)),
        ([_operation("Clip", -3, low=-20, high=12)], 3, (-128, 127), (-2, 2)),  # -2.5 and 1.5: ties to even
        ([_operation("Clip", -3, low=None, high=28)], 3, (0, 255), (0, 4)),  # 3.5
        ([_operation("Clip", -3, low=4, high=None)], 3, (0, 255), (0, 255)),  # 0.5
        ([_operation("Relu", -2), _operation("Clip", -3, low=-9, high=40)], 3, (-128, 127), (0, 5)),
        ([_operation("Clip", -2, low=8, high=9), _operation("Clip", -2, low=0, high=4)], 2, (-128, 127), (1, 1)),
        ([_operation("Clip", 1, low=-3, high=5)], -2, (-128, 127), (-12, 20)),  # a left shift
        ([_operation("Clip", -1, low=-3000, high=3000)], 1, (-128, 127), (-128, 127)),
    ],
)
def test_bounds_in_front_of_a_rounding_are_bounds_behind_it(
    operations: list[Operation], shift: int, tensor: tuple[int, int], expected: tuple[int, int]
) -> None:
    step = Step("s", None, tuple(operations), operations[-1].output if operations else "x", "q", shift)
    kept, low, high = split_rectifiers(step)
    assert kept == () and clipped_bounds(_tensor(*tensor), low, high, shift) == expected


def test_the_narrowest_width_of_constants() -> None:
    cases = {0: 2, 1: 2, -1: 2, -2: 2, 2: 3, 127: 8, -128: 8, 128: 9, -129: 9, 512: 11, -512: 10}
    assert {number: constant_bits(np.array([number, 0])) for number in cases} == cases


def test_dilations_and_groups_become_zeros() -> None:
    weights = np.arange(1, 9).reshape(4, 1, 1, 2)
    kernel, group = dense_kernel(weights, {"dilations": [1, 3], "group": 2})
    assert group == 1 and kernel.shape == (4, 2, 1, 4)
    np.testing.assert_array_equal(kernel[1], [[[3, 0, 0, 4]], [[0, 0, 0, 0]]])
    np.testing.assert_array_equal(kernel[2], [[[0, 0, 0, 0]], [[5, 0, 0, 6]]])
    same, group = dense_kernel(weights, {"dilations": [1, 1], "group": 4})
    assert group == 4 and (same == weights).all()
