"""What a foreign model may not hold: refused in one line that names the node or tensor and says what is expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.frontend_onnx import adopt
from tqt_onnx.ir import QUANTIZERS_KEY, ModelError, TqtOnnxError, UnsupportedError

node = helper.make_node
W = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


@pytest.fixture(name="refused")
def refusal(tmp_path: Path) -> Callable[..., str]:
    """`refused(proto, error)`: the message, one line that begins with the file."""

    def refused(proto: onnx.ModelProto, error: type[TqtOnnxError] = UnsupportedError, input_shape: Any = None) -> str:
        path = tmp_path / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(error) as caught:
            adopt(path, input_shape)
        text = str(caught.value)
        assert text.startswith(f"{path}: ")
        assert len(text.splitlines()) == 1
        assert "/project/" not in text and ".cc:" not in text and ".h:" not in text
        return text.removeprefix(f"{path}: ")

    return refused


def branch(name: str, value: float) -> onnx.GraphProto:
    constant = node("Constant", [], [f"{name}_out"], value=numpy_helper.from_array(np.full((1, 3, 8, 8), value, np.float32)))
    return helper.make_graph([constant], name, [], [helper.make_tensor_value_info(f"{name}_out", 1, [1, 3, 8, 8])])


def test_control_flow(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    choice = node("If", ["c"], ["k"], name="choose", then_branch=branch("then", 1), else_branch=branch("else", 2))
    line = refused(made([choice, node("Add", ["x", "k"], ["y"])], {"c": np.array(True)}, output_shape=["N", 3, 8, 8]))
    assert line.startswith("If node 'choose' is control flow") and "expected" in line
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Relu", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), helper.make_tensor_value_info("w", TensorProto.FLOAT, [])],
    )
    body.input[2].type.tensor_type.shape.SetInParent()
    loop = made([node("Loop", ["n", "", "x"], ["y"], body=body)], {"n": np.array(3)}, output_shape=["N", 3, 8, 8])
    assert "Loop node 'y' is control flow" in refused(loop)


def test_control_flow_inside_a_function(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    choice = node("If", ["c"], ["k"], name="choose", then_branch=branch("then", 1), else_branch=branch("else", 2))
    nodes = [node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))), choice, node("Add", ["a", "k"], ["b"])]
    function = helper.make_function("local", "f", ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])
    proto = made([node("f", ["x"], ["y"], domain="local")], opset=18, output_shape=["N", 3, 8, 8])
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.append(function)
    assert "control flow" in refused(proto)


def test_operators_of_other_domains(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    proto = made(
        [node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft", name="fused")], {"w": W}, output_shape=["N", 4, 6, 6]
    )
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    line = refused(proto)
    assert "FusedConv node 'fused'" in line and "'com.microsoft'" in line


def test_unknown_operators(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    proto = made([node("Relu", ["x"], ["h"]), node("Frobnicate", ["h"], ["y"], name="odd")], output_shape=["N", 3, 8, 8])
    line = refused(proto, ModelError)
    assert "Frobnicate" in line and "'odd'" in line
    proto = made([node("Gelu", ["x"], ["y"], name="later")], opset=13, output_shape=["N", 3, 8, 8])  # of opset 20
    assert "Gelu" in refused(proto, ModelError)


QUANTIZED: dict[str, list[onnx.NodeProto]] = {
    "QuantizeLinear": [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
    "DequantizeLinear": [node("DequantizeLinear", ["v", "s", "z"], ["d"]), node("Conv", ["x", "d"], ["y"])],
    "DynamicQuantizeLinear": [node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]), node("Cast", ["q"], ["y"], to=1)],
    "QLinearConv": [
        node("QLinearConv", ["u", "s", "z", "v", "s", "z", "s", "z"], ["c"]),
        node("Cast", ["c"], ["d"], to=1),
        node("Add", ["x", "d"], ["y"]),
    ],
    "ConvInteger": [node("ConvInteger", ["u", "v"], ["c"]), node("Cast", ["c"], ["d"], to=1), node("Add", ["x", "d"], ["y"])],
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_models_quantized_by_other_tools(made: Callable[..., Any], refused: Callable[..., str], kind: str) -> None:
    constants = {"s": np.float32(0.5), "z": np.uint8(0), "v": np.ones((4, 3, 3, 3), np.uint8), "u": np.ones((1, 3, 8, 8), np.uint8)}
    line = refused(made(QUANTIZED[kind], constants, output_shape=["N", 3, 8, 8]))
    assert line.startswith(f"{kind} node ") and "quantized by another tool; a float model is expected" in line


def test_a_quantized_model_of_ours(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    proto = made([node("Relu", ["x"], ["y"])])
    proto.metadata_props.add(key=QUANTIZERS_KEY, value="{}")
    assert refused(proto, ModelError) == "the model is quantized already; a float model is expected"


MOMENTS = {name: np.ones(3, np.float32) for name in "sbmv"}
TRAINING: dict[str, tuple[int, list[onnx.NodeProto], dict[str, Any]]] = {
    "training_mode": (
        15,
        [node("BatchNormalization", ["x", *"sbmv"], ["y", "m2", "v2"], training_mode=1, name="norm")],
        MOMENTS,
    ),
    "statistics of the batch": (
        9,
        [node("BatchNormalization", ["x", *"sbmv"], ["y", "m2", "v2", "m3", "v3"], name="norm")],
        MOMENTS,
    ),
    "spatial = 0": (
        8,
        [node("BatchNormalization", ["x", *"sbmv"], ["y"], spatial=0, name="norm")],
        {name: np.ones((3, 8, 8), np.float32) for name in "sbmv"},
    ),
    "training_mode is true": (
        13,
        [node("Dropout", ["x", "r", "t"], ["y"], name="norm")],
        {"r": np.float32(0.5), "t": np.array(True)},
    ),
    "its mode is computed": (
        13,
        [node("Not", ["f"], ["t"]), node("Dropout", ["x", "r", "t"], ["y"], name="norm")],
        {"r": np.float32(0.5), "f": np.array(False)},
    ),
}


@pytest.mark.parametrize("why", TRAINING)
def test_training_mode(made: Callable[..., Any], refused: Callable[..., str], why: str) -> None:
    opset, nodes, constants = TRAINING[why]
    line = refused(made(nodes, constants, opset=opset, output_shape=["N", 3, 8, 8]))
    assert "node 'norm' is in training mode" in line and why in line and "expected" in line


@pytest.mark.parametrize(
    ("dtype", "name"), [(TensorProto.FLOAT16, "float16"), (TensorProto.DOUBLE, "double"), (TensorProto.BFLOAT16, "bfloat16")]
)
def test_other_float_types(made: Callable[..., Any], refused: Callable[..., str], dtype: int, name: str) -> None:
    proto = made([node("Relu", ["x"], ["y"])], output_type=dtype, output_shape=["N", 3, 8, 8], opset=14)
    proto.graph.input[0].type.tensor_type.elem_type = dtype
    line = refused(proto)
    assert "input 'x'" in line and "float32 network is expected" in line and name in line


def test_a_float_type_inside(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    nodes = [node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), node("Relu", ["h"], ["r"]), node("Cast", ["r"], ["y"], to=1)]
    line = refused(made(nodes))
    assert "tensor 'h'" in line and "float16" in line
    constant = numpy_helper.from_array(np.ones(3, np.float64), "k")
    proto = made([node("Cast", ["k"], ["f"], to=1), node("Mul", ["x", "f"], ["y"])], shape=["N", 3])
    proto.graph.initializer.append(constant)
    assert "float64" in refused(proto)


def test_an_input_of_bytes(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    proto = made([node("Cast", ["x"], ["h"], to=1), node("Relu", ["h"], ["y"])])
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert "input 'x'" in refused(proto)


@pytest.mark.parametrize("opset", [1, 5, 6, 29, 999, 2**40])
def test_opsets_out_of_range(made: Callable[..., Any], refused: Callable[..., str], opset: int) -> None:
    proto = made([node("Relu", ["x"], ["y"])])
    proto.opset_import[0].version = opset
    line = refused(proto, ModelError)
    newest = onnx.defs.onnx_opset_version()
    assert str(opset) in line and (f"opset of 7 to {newest} is expected" in line)


@pytest.mark.parametrize("ir_version", [0, 15, 99, 2**40])
def test_ir_versions_out_of_range(made: Callable[..., Any], refused: Callable[..., str], ir_version: int) -> None:
    proto = made([node("Relu", ["x"], ["y"])])
    proto.ir_version = ir_version
    assert f"IR version of 1 to {onnx.IR_VERSION} is expected. Received: {ir_version}" in refused(proto, ModelError)


def test_what_opset_21_cannot_say(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    line = refused(made([node("Swish", ["x"], ["y"], name="swish")], opset=24))
    assert "Swish node 'swish'" in line and "opset 21" in line
    line = refused(made([node("Cast", ["x"], ["y"], to=1, round_mode="up", name="cast")], opset=24))
    assert "Cast node 'cast'" in line and "'round_mode'" in line


def test_sparse_initializers(made: Callable[..., Any], tmp_path: Path) -> None:
    proto = made([node("Mul", ["x", "k"], ["y"])], shape=["N", 3], output_shape=["N", 3])
    values = numpy_helper.from_array(np.ones(1, np.float32), "k")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1]), "k_indices"), [2**40])
    proto.graph.sparse_initializer.append(sparse)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UnsupportedError, match="sparse initializer 'k'"):
        adopt(tmp_path / "m.onnx")
    proto = made([node("Constant", [], ["k"], sparse_value=sparse, name="c"), node("Mul", ["x", "k"], ["y"])], shape=["N", 3])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UnsupportedError, match="Constant node 'c' holds a sparse tensor"):
        adopt(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("shape", "given", "says"),
    [
        (["N", 3, "H", "W"], None, "[N, 3, H, W]"),
        (["N", 3, None, -1], None, "[N, 3, ?, ?]"),
        (["N", 3, "H", "W"], (4, 8, 8), "[4, 8, 8]"),
        (["N", 3, "H", "W"], (8, 8), "[8, 8]"),
        (["N", 3, 8, 8], (3, 9, 9), "no input has the shape [3, 9, 9]"),
        ([], None, "a scalar"),
        (None, None, "no shape"),
    ],
)
def test_shapes_that_are_not_known(
    made: Callable[..., Any], refused: Callable[..., str], shape: Any, given: Any, says: str
) -> None:
    proto = made([node("Relu", ["x"], ["y"])])
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
    line = refused(proto, ModelError, given)
    assert says in line and "'x'" in line


def test_what_fixes_the_batch(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    line = refused(made([node("Relu", ["x"], ["r"]), node("ReduceMean", ["r"], ["y"], axes=[0], keepdims=1, name="mean")]))
    assert "output 'y'" in line and "[N, ...] is expected" in line and "ReduceMean node 'mean'" in line
    nodes = [node("Relu", ["x"], ["r"]), node("Reshape", ["r", "t"], ["y"], name="flat")]
    assert "flat" in refused(made(nodes, {"t": np.array([3, -1])}, shape=[1, 3, 8, 8], output_shape=[3, 64]))
    line = refused(made([node("Add", ["x", "z"], ["y"])], inputs={"x": [2, 3], "z": [1, 3]}, output_shape=[2, 3]))
    assert "'x': 2" in line and "'z': 1" in line


def test_boundaries_that_say_nothing(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    relu = node("Relu", ["x"], ["y"])
    twice = made([relu])
    twice.graph.output.append(twice.graph.output[0])
    assert "each output needs a name of its own. Received: 'y' twice" in refused(twice, ModelError)
    passed = made([relu], outputs=["y", "x"], output_shape=["N", 3, 8, 8])
    assert "output 'x' is an input or a constant" in refused(passed, ModelError)
    silent = made([relu])
    del silent.graph.output[:]
    assert "it has no output" in refused(silent, ModelError)
    unfed = made([node("Relu", ["k"], ["y"])], {"k": np.ones((1, 3), np.float32)}, output_shape=[1, 3])
    del unfed.graph.input[:]
    assert "it has no input" in refused(unfed, ModelError)
    empty = made([relu])
    del empty.graph.node[:]
    refused(empty, ModelError)


def test_names_defined_twice(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    refused(made([node("Relu", ["x"], ["y"]), node("Sigmoid", ["x"], ["y"])], output_shape=["N", 3, 8, 8]), ModelError)
    refused(made([node("Relu", ["x"], ["x"])], outputs=["x"], output_shape=["N", 3, 8, 8]), ModelError)
    proto = made([node("Add", ["x", "k"], ["y"])], {"k": np.ones(8, np.float32)})
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.float32), "k"))
    refused(proto, ModelError)
    refused(made([node("Add", ["x", "nobody"], ["y"])], output_shape=["N", 3, 8, 8]), ModelError)


def test_constants_that_are_no_numbers(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    weights = W.copy()
    weights[1, 2, 0, 1] = np.nan
    assert "constant 'w'" in refused(made([node("Conv", ["x", "w"], ["y"])], {"w": weights}), ModelError)


def test_windows_larger_than_their_input(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    wide = made([node("Conv", ["x", "w"], ["y"], dilations=[1, 9], name="wide")], {"w": W}, output_shape=["N", 4, 6, 1])
    assert "'y'" in refused(wide, ModelError)


@pytest.mark.parametrize(
    ("weight", "bias", "group"),
    [((4, 2, 3, 3), None, 1), ((4, 3, 3, 3), (3,), 1), ((4, 3, 3, 3), None, 3), ((4, 1, 3, 3), None, 3), ((4, 3, 3, 3), None, 0)],
)
def test_convolutions_whose_channels_do_not_fit(
    made: Callable[..., Any], refused: Callable[..., str], weight: Any, bias: Any, group: int
) -> None:
    constants = {"w": np.ones(weight, np.float32)} | ({} if bias is None else {"b": np.ones(bias, np.float32)})
    line = refused(made([node("Conv", ["x", *constants], ["y"], group=group)], constants, output_shape=["N", 4, 6, 6]), ModelError)
    assert "Conv node 'y'" in line or "ill-formed" in line or "shape inference fails" in line


def test_tensors_without_elements(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    nodes = [node("Slice", ["x"], ["s"], axes=[1], starts=[3], ends=[3]), node("Relu", ["s"], ["y"])]
    assert "'s'" in refused(made(nodes, opset=9, output_shape=["N", 0, 8, 8]), ModelError)


def test_tensors_of_terabytes(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    assert "'x'" in refused(made([node("Relu", ["x"], ["y"])], shape=["N", 3, 2**20, 2**20]))


def test_tensors_with_more_or_less_than_their_shape_says(made: Callable[..., Any], refused: Callable[..., str]) -> None:
    for dims in ([4, 3, 3, 4], [4, 3, 3], [2**40, 3, 3, 3], [-4, -3, 3, 3]):
        proto = made([node("Conv", ["x", "w"], ["y"])], {"w": W})
        del proto.graph.initializer[0].dims[:]
        proto.graph.initializer[0].dims.extend(dims)
        assert "'w'" in refused(proto, ModelError)


def test_text_that_is_not_utf_8(made: Callable[..., Any], tmp_path: Path) -> None:
    whole = made([node("Relu", ["x"], ["y"], name="rectify")]).SerializeToString()
    for word in (b"rectify", b"Relu", b"foreign"):
        (tmp_path / "m.onnx").write_bytes(whole.replace(word, b"\xff" * len(word)))
        with pytest.raises(ModelError, match="UTF-8 text is expected"):
            adopt(tmp_path / "m.onnx")


# --- external data


def external(proto: onnx.ModelProto, **entries: Any) -> onnx.ModelProto:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "{t}/secret.bin", "/etc/hostname", "none.bin", "", ".", "link.bin", "../in", "loop", "a\0b", "n" * 300],
)
def test_external_data_outside_the_folder(made: Callable[..., Any], tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(W.nbytes))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "loop").symlink_to(folder / "loop")
    for where in ("initializer", "attribute"):
        proto = made([node("Conv", ["x", "w"], ["y"])], {"w": W})
        external(proto, location=location.format(t=tmp_path))
        if where == "attribute":  # the same in a Constant node
            proto.graph.node.insert(0, node("Constant", [], ["w"], value=proto.graph.initializer.pop()))
        (folder / "m.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(ModelError, match="which is no file inside"):
            adopt(folder / "m.onnx")


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": 1},
        {"offset": -1},
        {"length": W.nbytes + 1},
        {"length": W.nbytes - 4},
        {"length": -1},
        {"offset": "one"},
        {"length": 2**70},
        {"offset": 2**70},
    ],
)
def test_external_data_of_the_wrong_size(
    made: Callable[..., Any], refused: Callable[..., str], tmp_path: Path, entries: Any
) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    line = refused(external(made([node("Conv", ["x", "w"], ["y"])], {"w": W}), location="w.bin", **entries), ModelError)
    assert "'w'" in line and "'w.bin'" in line


def test_a_tensor_that_claims_terabytes(made: Callable[..., Any], refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    proto = external(made([node("Conv", ["x", "w"], ["y"])], {"w": W}), location="w.bin")
    proto.graph.initializer[0].dims[0] = 2**40
    assert "bytes are expected" in refused(proto)
    proto.graph.initializer[0].dims[0] = -1
    assert "negative" in refused(proto, ModelError)
