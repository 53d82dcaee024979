"""Foreign ONNX: what other exporters write gives the numbers of the file, before and behind the passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.frontend_onnx import adopt, as_written
from tqt_onnx.ir import IR_VERSION, ROLE_KEY, SOURCE_KEY, VERSION_KEY, ModelError, UnsupportedError, constant, load, save

node = helper.make_node
RNG = np.random.default_rng(7)


def f32(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def bn(name: str, source: str, target: str, channels: int, **attributes: Any) -> tuple[onnx.NodeProto, dict[str, Any]]:
    names = [f"{name}_{part}" for part in ("scale", "bias", "mean", "var")]
    values = [f32(channels), f32(channels), f32(channels), np.abs(f32(channels)) + 0.5]
    return node("BatchNormalization", [source, *names], [target], name=name, **attributes), dict(zip(names, values, strict=True))


# --- one operator or idiom each: (opsets, nodes, constants)

BN, BN_CONSTANTS = bn("bn", "x", "y", 3)
CONV = {"w": f32(4, 3, 3, 3), "b": f32(4)}
CASES: dict[str, tuple[tuple[int, ...], list[onnx.NodeProto], dict[str, Any]]] = {
    "conv": ((7, 11, 21, 22, 25), [node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])], CONV),
    "conv same upper": (
        (7, 13),
        [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3])],
        {"w": CONV["w"]},
    ),
    "conv same lower": ((11,), [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2])], {"w": CONV["w"]}),
    "conv valid": ((11,), [node("Conv", ["x", "w"], ["y"], auto_pad="VALID", dilations=[2, 1])], {"w": CONV["w"]}),
    "depthwise": ((9,), [node("Conv", ["x", "w"], ["y"], group=3)], {"w": f32(6, 1, 3, 3)}),
    "flatten, gemm transB": (
        (7, 9, 13),
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        {"w": f32(5, 192), "b": f32(5)},
    ),
    "conv, bn, relu": (
        (7, 9, 14, 15),
        [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), bn("n", "c", "d", 4)[0], node("Relu", ["d"], ["y"])],
        {"w": CONV["w"]} | bn("n", "c", "d", 4, epsilon=1e-3)[1],
    ),
    "bn alone": ((7, 9, 15), [BN], BN_CONSTANTS),
    "bn, conv": ((9,), [bn("n", "x", "d", 3)[0], node("Conv", ["d", "w", "b"], ["y"])], CONV | bn("n", "x", "d", 3)[1]),
    "global pools": (
        (7, 22),
        [node("GlobalAveragePool", ["x"], ["a"]), node("GlobalMaxPool", ["x"], ["m"]), node("Add", ["a", "m"], ["y"])],
        {},
    ),
    "clip with attributes": ((7, 10), [node("Clip", ["x"], ["y"], min=0.0, max=6.0)], {}),
    "clip from below": ((7,), [node("Clip", ["x"], ["y"], min=0.0)], {}),
    "clip with inputs": ((11, 13), [node("Clip", ["x", "", "hi"], ["y"])], {"hi": np.float32(0.5)}),
    "dropout": ((7, 10, 12, 13, 22), [node("Dropout", ["x"], ["d"]), node("Relu", ["d"], ["y"])], {}),
    "dropout and its ratio": ((12,), [node("Dropout", ["x", "r"], ["d"]), node("Relu", ["d"], ["y"])], {"r": np.float32(0.4)}),
    "dropout said to be off": (
        (12, 13),
        [node("Dropout", ["x", "r", "t"], ["d"]), node("Relu", ["d"], ["y"])],
        {"r": np.float32(0.4), "t": np.array(False)},
    ),
    "identities": (
        (7, 13),
        [node("Identity", ["x"], ["a"]), node("Relu", ["a"], ["b"]), node("Identity", ["b"], ["y"])],
        {},
    ),
    "constant nodes": (
        (7, 13),
        [
            node("Constant", [], ["k"], value=numpy_helper.from_array(f32(3, 1, 1))),
            node("Mul", ["x", "k"], ["m"]),
            node("Add", ["m", "k"], ["y"]),
        ],
        {},
    ),
    "constants of every kind": (
        (12, 13),
        [
            node("Constant", [], ["a"], value_float=0.5),
            node("Constant", [], ["b"], value_floats=[0.5]),
            node("Constant", [], ["s"], value_ints=[0, -1]),
            node("Mul", ["x", "a"], ["m"]),
            node("Add", ["m", "b"], ["n"]),
            node("Reshape", ["n", "s"], ["y"]),
        ],
        {},
    ),
    "upsample by attribute": ((7, 8), [node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 3.0], mode="nearest")], {}),
    "upsample by input": ((9,), [node("Upsample", ["x", "s"], ["y"])], {"s": np.array([1, 1, 2, 1.5], np.float32)}),
    "upsample linear": ((7,), [node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0], mode="linear")], {}),
    "resize as in opset 10": ((10,), [node("Resize", ["x", "s"], ["y"])], {"s": np.array([1, 1, 1.5, 2.25], np.float32)}),
    "shrink as in opset 10": ((10,), [node("Resize", ["x", "s"], ["y"])], {"s": np.array([1, 1, 0.6, 0.75], np.float32)}),
    "resize linear as in opset 10": (
        (10,),
        [node("Resize", ["x", "s"], ["y"], mode="linear")],
        {"s": np.array([1, 1, 1.5, 0.75], np.float32)},
    ),
    "resize": ((13, 19), [node("Resize", ["x", "", "s"], ["y"])], {"s": np.array([1, 1, 2, 2], np.float32)}),
    "max pool": ((7, 8, 12), [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}),
    "max pool same": ((7,), [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")], {}),
    "max pool ceil": ((10,), [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}),
    "average pool": ((7, 11), [node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], {}),
    "average pool with pads": (
        (7, 19),
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
    ),
    "pad by attribute": ((7, 10), [node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1])], {}),
    "pad, conv": (
        (11, 18),
        [node("Pad", ["x", "p"], ["q"]), node("Conv", ["q", "w"], ["y"])],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": CONV["w"]},
    ),
    "reduce mean by attribute": ((7, 11, 13), [node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)], {}),
    "reduce mean by input": ((18,), [node("ReduceMean", ["x", "a"], ["y"])], {"a": np.array([2, 3])}),
    "squeeze by attribute": (
        (7, 11),
        [node("GlobalAveragePool", ["x"], ["a"]), node("Squeeze", ["a"], ["y"], axes=[2, 3])],
        {},
    ),
    "unsqueeze": ((7, 13), [node("Relu", ["x"], ["r"]), node("Flatten", ["r"], ["y"])], {}),
    "softmax of logits": (
        (7, 11, 13),
        [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["l"]), node("Softmax", ["l"], ["y"], axis=1)],
        {"w": f32(192, 4)},
    ),
    "softmax over everything": ((11,), [node("Softmax", ["x"], ["y"], axis=1)], {}),
    "leaky, prelu": (
        (7, 16),
        [node("LeakyRelu", ["x"], ["l"], alpha=0.1), node("PRelu", ["l", "s"], ["y"])],
        {"s": np.abs(f32(3, 1, 1))},
    ),
    "elementwise": (
        (7, 14),
        [node("Sub", ["x", "k"], ["a"]), node("Div", ["a", "k"], ["b"]), node("Sum", ["x", "b", "a"], ["y"])],
        {"k": np.abs(f32(1, 3, 1, 1)) + 1},
    ),
    "concat, slice": (
        (7, 9),
        [node("Concat", ["x", "x"], ["c"], axis=1), node("Slice", ["c"], ["y"], axes=[1, 2], starts=[1, 0], ends=[5, 4])],
        {},
    ),
    "split": (
        (7, 11),
        [node("Split", ["x"], ["a", "b"], axis=2, split=[3, 5]), node("Concat", ["b", "a"], ["y"], axis=2)],
        {},
    ),
    "even split": ((11, 13), [node("Split", ["x"], ["a", "b"], axis=2), node("Add", ["a", "b"], ["y"])], {}),
    "transposes": (
        (7, 21),
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
            node("Relu", ["t"], ["r"]),
            node("Transpose", ["r"], ["y"], perm=[0, 3, 1, 2]),
        ],
        {},
    ),
    "activations": (
        (7, 13, 22),
        [
            node("Sigmoid", ["x"], ["a"]),
            node("Tanh", ["a"], ["b"]),
            node("HardSigmoid", ["b"], ["c"], alpha=0.2, beta=0.5),
            node("Elu", ["c"], ["y"]),
        ],
        {},
    ),
    "computed flatten": (  # as older exporters write it
        (9, 11, 13),
        [
            node("Shape", ["x"], ["s"]),
            node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0))),
            node("Gather", ["s", "zero"], ["n"], axis=0),
            node("Unsqueeze", ["n"], ["u"], axes=[0]),
            node("Concat", ["u", "minus"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["f"]),
            node("MatMul", ["f", "w"], ["y"]),
        ],
        {"minus": np.array([-1]), "w": f32(192, 4)},
    ),
    "transposed convolution": ((11, 22), [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], {"w": f32(3, 4, 3, 3)}),
    "space to depth": ((10, 13, 26), [node("SpaceToDepth", ["x"], ["y"], blocksize=2)], {}),
    "hard swish": ((14, 22), [node("HardSwish", ["x"], ["y"])], {}),
    "instance normalization": (
        (7,),
        [node("InstanceNormalization", ["x", "s", "s"], ["y"])],
        {"s": f32(3)},
    ),
}
OTHER_KERNELS = {"upsample linear", "resize linear as in opset 10", "average pool", "average pool with pads"}
"""onnxruntime computes these with other kernels in opset 21: the same formula, another rounding."""

RUNS = [(name, opset) for name, (opsets, _, _) in CASES.items() for opset in opsets]


@pytest.mark.parametrize(("name", "opset"), RUNS)
def test_the_numbers_of_the_file(made: Callable[..., Any], adopted: Callable[..., Any], name: str, opset: int) -> None:
    _, nodes, constants = CASES[name]
    if opset >= 13 and name == "computed flatten":
        nodes = [node("Unsqueeze", ["n", "axis"], ["u"]) if item.op_type == "Unsqueeze" else item for item in nodes]
        constants = constants | {"axis": np.array([0])}
    adopted(made(nodes, constants, opset=opset, ir_version=3 if opset < 9 else 8), exact=name not in OTHER_KERNELS)


# --- whole networks


def test_a_residual_network_as_exporters_write_it(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    first, second = bn("bn1", "c1", "d1", 4), bn("bn2", "c2", "d2", 4)
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1], name="conv"),
        first[0],
        node("Relu", ["d1"], ["r1"], name="relu"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], name="conv"),
        second[0],
        node("Add", ["d2", "r1"], ["s"]),
        node("Relu", ["s"], ["r2"]),
        node("GlobalAveragePool", ["r2"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["y"], transB=1, name="relu"),
    ]
    constants = {"w1": f32(4, 3, 3, 3), "w2": f32(4, 4, 3, 3), "b2": f32(4), "w3": f32(5, 4), "b3": f32(5)}
    model = adopted(made(nodes, constants | first[1] | second[1], opset=9, ir_version=3))
    assert [item.name for item in model.graph][:4] == ["conv", "bn1", "relu", "conv_1"]
    assert [item.metadata_props[SOURCE_KEY] for item in model.graph][-5:] == ["s", "r2", "g", "f", "relu"]
    assert [item.op_type for item in model.graph] == [item.op_type for item in nodes]


def test_names_and_metadata_of_the_file_stay(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    proto = made([node("Clip", ["x"], ["a/b:0"], min=0.0, max=6.0, name="c"), node("Relu", ["a/b:0"], ["y"])], opset=9)
    proto.metadata_props.add(key="author", value="somebody")
    proto.graph.node[1].metadata_props.add(key=ROLE_KEY, value="input")
    proto.graph.node[1].metadata_props.add(key=SOURCE_KEY, value="net/relu")
    model = adopted(proto)
    assert model.metadata_props == {"author": "somebody"}
    assert [(item.name, item.metadata_props) for item in model.graph] == [
        ("c", {SOURCE_KEY: "c"}),
        ("y", {SOURCE_KEY: "net/relu"}),  # where it came from before; roles are ours to give
    ]
    assert set(model.graph.initializers) == {"c__1", "c__2"}


def test_a_file_of_ours_is_taken_as_it_is(made: Callable[..., Any], adopted: Callable[..., Any], tmp_path: Path) -> None:
    ours = adopted(made([node("Conv", ["x", "w", "b"], ["c"]), node("Relu", ["c"], ["y"])], CONV))
    ours.metadata_props[VERSION_KEY] = "1"
    again = adopt(save(ours, tmp_path / "ours.onnx"))
    assert onnx_ir.to_onnx_text(again) == onnx_ir.to_onnx_text(load(tmp_path / "ours.onnx"))
    assert (again.metadata_props, again.graph.doc_string) == (ours.metadata_props, ours.graph.doc_string)


def test_types_of_outputs_are_inferred(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    nodes = [node("Flatten", ["x"], ["f"]), node("ArgMax", ["f"], ["y"], axis=1), node("Relu", ["x"], ["z"])]
    proto = made(nodes, outputs=["y", "z"], output_shape=["N"])
    for value in proto.graph.output:
        value.ClearField("type")
    model = adopted(proto)
    assert [(value.dtype, dims(value)) for value in model.graph.outputs] == [
        (onnx_ir.DataType.INT64, ["N", 1]),
        (onnx_ir.DataType.FLOAT, ["N", 3, 8, 8]),
    ]


# --- shapes


@pytest.mark.parametrize("first", ["N", "batch_size", None, -1, 0, 1, 4])
def test_the_batch_is_open(made: Callable[..., Any], adopted: Callable[..., Any], first: Any) -> None:
    proto = made([node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w"], ["y"])], {"w": f32(192, 4)}, shape=[4, 3, 8, 8])
    for value in (*proto.graph.input, *proto.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        if isinstance(first, str):
            dim.dim_param = first
        elif first is not None:
            dim.dim_value = first
    model = adopted(proto)
    batch = first if isinstance(first, str) else "N"
    assert dims(model.graph.inputs[0]) == [batch, 3, 8, 8]
    assert dims(model.graph.outputs[0]) == [batch, 4]


def dims(value: onnx_ir.Value) -> list[Any]:
    assert value.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


@pytest.mark.parametrize("target", [[1, -1], [1, 192], [-1, 192], [0, -1]])
@pytest.mark.parametrize("batch", [1, "N"])  # some claim an open batch all the same
def test_reshapes_of_a_fixed_batch_are_freed(
    made: Callable[..., Any], adopted: Callable[..., Any], target: list[int], batch: Any
) -> None:
    nodes = [node("Reshape", ["x", "t"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
    model = adopted(made(nodes, {"t": np.array(target), "w": f32(192, 4)}, shape=[batch, 3, 8, 8], output_shape=[batch, 4]))
    assert dims(model.graph.outputs[0]) == ["N", 4]


def test_one_target_of_two_reshapes(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    nodes = [
        node("Reshape", ["x", "t"], ["a"]),
        node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["p", "t"], ["b"]),
        node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    adopted(made(nodes, {"t": np.array([1, -1])}, shape=[1, 3, 8, 8], output_shape=[1, 240]))


def test_the_symbol_of_the_batch_comes_through_reshapes(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    nodes = [node("Reshape", ["x", "t"], ["f"]), node("Relu", ["f"], ["y"])]
    assert dims(adopted(made(nodes, {"t": np.array([-1, 192])}, shape=["B", 3, 8, 8])).graph.outputs[0]) == ["B", 192]


def test_two_inputs_have_one_batch(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    nodes = [node("Add", ["x", "z"], ["y"])]
    model = adopted(made(nodes, inputs={"x": ["a", 3, 4, 4], "z": ["b", 3, 1, 1]}, output_shape=["c", 3, 4, 4]))
    assert {str(dims(value)[0]) for value in (*model.graph.inputs, *model.graph.outputs)} == {"a"}


@pytest.mark.parametrize("shape", [["N", 3, "H", "W"], ["N", 3, -1, None], ["N", "C", "H", "W"], None])
def test_open_dimensions_are_given(made: Callable[..., Any], adopted: Callable[..., Any], shape: Any) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]), node("GlobalAveragePool", ["c"], ["y"])]
    proto = made(nodes, {"w": f32(4, 3, 3, 3)}, output_shape=["N", 4, 1, 1])
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
    model = adopted(proto, (3, 9, 7))
    assert dims(model.graph.inputs[0]) == ["N", 3, 9, 7]


def test_a_given_shape_goes_to_the_inputs_it_fits(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    nodes = [node("GlobalAveragePool", ["x"], ["g"]), node("Flatten", ["g"], ["f"]), node("Concat", ["f", "z"], ["y"], axis=1)]
    inputs = {"x": ["N", 3, "H", "W"], "z": ["N", 2]}
    model = adopted(made(nodes, inputs=inputs, output_shape=["N", 5]), (3, 6, 5))
    assert [dims(value) for value in model.graph.inputs] == [["N", 3, 6, 5], ["N", 2]]


# --- what is unfolded or put aside


def function(name: str, nodes: list[onnx.NodeProto], domain: str = "local") -> onnx.FunctionProto:
    return helper.make_function(domain, name, ["a"], ["b"], nodes, [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)])


def calling(made: Callable[..., Any], functions: list[onnx.FunctionProto], call: str) -> onnx.ModelProto:
    nodes = [node(call, ["x"], ["h"], domain="local", name="call"), node("Relu", ["h"], ["y"])]
    proto = made(nodes, opset=18, output_shape=["N", 3, 8, 8])
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.extend(functions)
    return proto


def test_local_functions_are_unfolded(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    inner = function("inner", [node("Sigmoid", ["a"], ["b"])])
    outer = function("outer", [node("inner", ["a"], ["c"], domain="local"), node("Mul", ["a", "c"], ["b"])])
    model = adopted(calling(made, [outer, inner], "outer"))
    assert [item.op_type for item in model.graph] == ["Sigmoid", "Mul", "Relu"]
    assert not model.functions


def test_functions_that_would_unfold_without_end(made: Callable[..., Any], tmp_path: Path) -> None:
    doubling = [function("f0", [node("Relu", ["a"], ["b"])])]
    for depth in range(1, 60):
        calls = [node(f"f{depth - 1}", [a], [b], domain="local") for a, b in (("a", "c"), ("c", "b"))]
        doubling.append(function(f"f{depth}", calls))
    circle = [
        function("f0", [node("f1", ["a"], ["b"], domain="local")]),
        function("f1", [node("f0", ["a"], ["b"], domain="local")]),
    ]
    chain = [function("f0", [node("Relu", ["a"], ["b"])])]
    chain += [function(f"f{depth}", [node(f"f{depth - 1}", ["a"], ["b"], domain="local")]) for depth in range(1, 90)]
    for functions, call, says in (
        (doubling, "f59", "200000 nodes"),
        (circle, "f0", "f1"),
        ([function("f0", [node("f0", ["a"], ["b"], domain="local")])], "f0", "f0"),
        (chain, "f89", ""),
    ):
        path = tmp_path / "f.onnx"
        path.write_bytes(calling(made, functions, call).SerializeToString())
        try:
            model = adopt(path)
        except (ModelError, UnsupportedError) as error:
            assert says and says in str(error), str(error)
        else:
            assert not says and len(model.graph) == 2


def test_imports_of_domains_that_nobody_uses_go(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    proto = made([node("Relu", ["x"], ["y"])])
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))  # every exporter that can write trees does so
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    adopted(proto)


def test_defaults_of_inputs_are_constants(made: Callable[..., Any], adopted: Callable[..., Any]) -> None:
    proto = made([node("Add", ["x", "k"], ["y"])], {"k": f32(3, 1, 1)}, ir_version=8)
    proto.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [3, 1, 1]))
    model = adopted(proto)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert constant(model.graph.initializers["k"]) is not None


@pytest.mark.parametrize("ir_version", [3, 8, 10, 13, 14])
def test_ir_versions(made: Callable[..., Any], tmp_path: Path, ir_version: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(made([node("Relu", ["x"], ["y"])], ir_version=ir_version).SerializeToString())
    assert adopt(path).ir_version == IR_VERSION
    assert as_written(path).ir_version == min(max(ir_version, 4), IR_VERSION)
    assert as_written(path).opset_imports == {"": 13}


def test_external_data_are_taken_in(made: Callable[..., Any], tmp_path: Path) -> None:
    proto = made([node("Conv", ["x", "w", "b"], ["y"])], CONV)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="m.bin")
    assert (tmp_path / "m.bin").stat().st_size >= CONV["w"].nbytes + CONV["b"].nbytes
    for model in (adopt(path), as_written(path)):
        np.testing.assert_array_equal(constant(model.graph.initializers["w"]), CONV["w"])
        np.testing.assert_array_equal(constant(model.graph.initializers["b"]), CONV["b"])
