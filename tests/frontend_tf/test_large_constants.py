"""Weights go around tf2onnx and TensorFlow's import: the same to the last bit, and memory stays near the size of the model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import FrozenGraph, large_constants, load, to_onnx
from tqt_onnx.frontend_tf.conversion import stand_ins
from tqt_onnx.frontend_tf.conversion.stand_ins import leave_out_weights
from tqt_onnx.ir import ModelError, UnsupportedError

v1 = tf.compat.v1
RNG = np.random.default_rng(0)
Build = Callable[[Any], Any]


def weight(*shape: int) -> Any:
    return tf.constant(RNG.normal(size=shape).astype(np.float32), name="w")


def read(*shape: int) -> Any:
    return tf.identity(weight(*shape), name="w/read")


def conv(x: Any, w: Any, name: str = "conv", **options: Any) -> Any:
    return tf.nn.conv2d(x, w, 1, options.pop("padding", "SAME"), name=name, **options)


def depthwise(x: Any, w: Any, name: str = "dw", **options: Any) -> Any:
    return tf.nn.depthwise_conv2d(x, w, (1, 1, 1, 1), "SAME", name=name, **options)


def transposed(x: Any, w: Any, size: int, padding: str) -> Any:
    return v1.nn.conv2d_transpose(x, w, tf.stack([tf.shape(x)[0], size, size, 4]), (1, 2, 2, 1), padding, name="deconv")


def twice(layer: Callable[..., Any]) -> Build:
    def build(x: Any) -> Any:
        w = weight(3, 3, 3, 1 if layer is depthwise else 3)
        return layer(tf.nn.relu(layer(x, w, "first")), w, "second")

    return build


def tied(x: Any) -> Any:
    w = weight(192, 192)
    return tf.matmul(tf.nn.relu(tf.matmul(flat(x), w, name="up")), w, transpose_b=True, name="down")


def flat(x: Any) -> Any:
    return tf.reshape(x, [-1, 192])


FORMS: dict[str, tuple[Build, int]] = {
    "convolution": (lambda x: conv(x, weight(3, 3, 3, 4)), 1),
    "convolution, read": (lambda x: tf.nn.bias_add(conv(x, read(3, 3, 3, 4)), np.ones(4, np.float32)), 1),
    "one output channel": (lambda x: conv(x, read(3, 3, 3, 1)), 1),
    "1x1, one output channel": (lambda x: conv(x, read(1, 1, 3, 1)), 1),
    "dilated": (lambda x: conv(x, weight(3, 3, 3, 4), dilations=2), 1),
    "grouped": (lambda x: conv(tf.concat([x, x], -1), weight(3, 3, 3, 4)), 1),
    "explicit pads": (lambda x: conv(x, weight(3, 3, 3, 4), padding=[[0, 0], [1, 0], [0, 2], [0, 0]]), 1),
    "one weight, two layers": (twice(conv), 1),
    "depthwise": (lambda x: depthwise(x, weight(3, 3, 3, 1)), 1),
    "depthwise, multiplier": (lambda x: depthwise(x, read(3, 3, 3, 2)), 1),
    "depthwise, dilated": (lambda x: depthwise(x, weight(3, 3, 3, 1), dilations=(2, 2)), 1),
    "one weight, two depthwise layers": (twice(depthwise), 1),
    "transposed": (lambda x: transposed(x, weight(2, 2, 4, 3), 16, "SAME"), 1),
    "transposed, valid": (lambda x: transposed(x, read(3, 3, 4, 3), 17, "VALID"), 1),
    "dense": (lambda x: tf.nn.bias_add(tf.matmul(flat(x), weight(192, 5)), np.ones(5, np.float32)), 1),
    "dense, transposed": (lambda x: tf.matmul(flat(x), read(5, 192), transpose_b=True), 1),
    "one weight, also transposed": (tied, 1),
    "batched": (lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=read(5, 3), adj_y=True), 1),
    "decoded from float16": (lambda x: conv(x, tf.cast(tf.constant(np.ones((3, 3, 3, 4), np.float16)), tf.float32)), 1),
    "scaled in the graph": (lambda x: conv(x, weight(3, 3, 3, 4) * tf.constant(np.arange(4, dtype=np.float32))), 0),
    "an operand": (lambda x: conv(x, weight(3, 3, 3, 3)) + tf.constant(np.ones((8, 8, 3), np.float32)), 1),
    "on the left": (lambda x: tf.matmul(weight(4, 8), tf.reshape(x, [-1, 8, 24])), 0),
}


def written(model: onnx_ir.Model) -> tuple[Any, ...]:
    """Everything that a model says: nodes with their names and sources, values with their shapes, constants to the last bit."""
    nodes = [
        (
            (node.op_type, node.name, [value and value.name for value in node.inputs], sorted(node.metadata_props.items())),
            [(value.name, str(value.shape), str(value.type)) for value in node.outputs],
            sorted((key, str(attribute.value)) for key, attribute in node.attributes.items()),
        )
        for node in model.graph
    ]
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    constants = {name: (tensor.dtype, tensor.numpy().shape, tensor.tobytes()) for name, tensor in tensors.items() if tensor}
    return nodes, constants, [(value.name, str(value.shape)) for value in (*model.graph.inputs, *model.graph.outputs)]


@pytest.mark.parametrize("form", FORMS)
def test_weights_that_go_around_tf2onnx_come_out_the_same(
    form: str, write_graph: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, count = FORMS[form]
    path = write_graph(lambda: tf.identity(build(v1.placeholder(tf.float32, (None, 8, 8, 3), "x")), "y"))
    monkeypatch.setattr(large_constants, "LARGE", 1 << 40)
    expected = written(to_onnx(load(path)))
    monkeypatch.setattr(large_constants, "LARGE", 0)
    frozen = load(path)
    assert len(leave_out_weights(frozen.graph_def, ["x:0", "y:0"])[1]) == count
    assert written(to_onnx(frozen)) == expected


def test_a_constant_that_is_an_output_stays(write_graph: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_constants, "LARGE", 0)
    path = write_graph(lambda: tf.identity(conv(v1.placeholder(tf.float32, (None, 8, 8, 3), "x"), weight(3, 3, 3, 4)), "y"))
    frozen = load(path)
    assert leave_out_weights(frozen.graph_def, ["x:0", "w:0"])[1] == {}
    assert leave_out_weights(frozen.graph_def, ["x:0", "y:0"])[0] is not frozen.graph_def


def test_tensorflow_is_fed_with_large_constants_and_says_the_same(
    write_graph: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_graph(lambda: tf.identity(conv(v1.placeholder(tf.float32, (None, 8, 8, 3), "x"), weight(3, 3, 3, 4)), "y"))
    feeds = {"x": RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)}
    monkeypatch.setattr(large_constants, "LARGE", 1 << 40)
    expected = load(path).run(feeds)["y"]
    monkeypatch.setattr(large_constants, "LARGE", 0)
    frozen: FrozenGraph = load(path)
    assert large_constants.fed_from_outside(frozen.graph_def)[1].keys() == {"w"}
    assert (frozen.run(feeds)["y"] == expected).all()


def test_damage_in_a_large_constant_is_named(write_graph: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_constants, "LARGE", 0)

    def shorten(graph_def: Any) -> None:
        tensor = next(node for node in graph_def.node if node.name == "w").attr["value"].tensor
        tensor.tensor_content = tensor.tensor_content[:-4]

    path = write_graph(lambda: conv(v1.placeholder(tf.float32, (None, 8, 8, 3), "x"), weight(3, 3, 3, 4)), shorten)
    with pytest.raises(ModelError, match="'w' is damaged"):
        to_onnx(load(path))


def test_more_than_a_graph_can_hold_is_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_constants, "LARGEST", 500)
    model = keras.Sequential([keras.layers.Input((4, 4, 3)), keras.layers.Conv2D(8, 3)], name="huge")
    with pytest.raises(UnsupportedError, match=r"'huge': at most 500 bytes of weights are expected \(2 GB\). Received: 896"):
        load(model)
    module = tf.Module()
    module.w = tf.Variable(np.ones((3, 3, 3, 8), np.float32))
    function = tf.function(lambda x: tf.nn.conv2d(x, module.w, 1, "SAME"), [tf.TensorSpec([None, 4, 4, 3])])
    with pytest.raises(UnsupportedError, match=r"at most 500 bytes of weights .* Received: 864"):
        load(function)


_ROAD = """
import json, resource, sys
import numpy as np, onnxruntime, tensorflow as tf, tf2onnx
from tqt_onnx.verbs.check import check
from tqt_onnx.verbs.convert import convert
from tqt_onnx.verbs.quantize import quantize

def peak(work):
    open("/proc/self/clear_refs", "w").write("5")
    status = lambda key: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024
    before = status("VmRSS")
    result = work()
    return result, status("VmHWM") - before

images = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 64)).astype(np.float32)
conversion, first = peak(lambda: convert(sys.argv[1]))
assert conversion.ok
quantization, second = peak(lambda: quantize(conversion.model, images))
outcome, third = peak(lambda: check(quantization.model, images, engines=("oracle", "ort")))
assert outcome.exact
print(json.dumps([first, second, third]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks the kernel for the peak of the resident set")
def test_memory_stays_near_the_size_of_the_model(write_graph: Callable[..., Path]) -> None:
    """tf2onnx alone took thirty times the model. Half of what is allowed here is scratch of the libraries and of one layer."""
    size = 4 * 1024 * (12_000 + 10)

    def build() -> None:
        x = tf.reshape(v1.placeholder(tf.float32, (None, 4, 4, 64), "x"), [-1, 1024])
        y = tf.nn.relu(tf.matmul(x, (RNG.normal(size=(1024, 12_000)) / 32).astype(np.float32)))
        tf.matmul(y, (RNG.normal(size=(12_000, 10)) / 100).astype(np.float32), name="y")

    path = write_graph(build)
    run = subprocess.run([sys.executable, "-c", _ROAD, str(path)], capture_output=True, text=True, check=True)
    convert, quantize, check = (peak / size for peak in json.loads(run.stdout.splitlines()[-1]))
    assert convert < 8
    assert quantize < 6
    assert check < 10


def test_a_long_chain_of_identities_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 copies of a weight, one after the other: asking each for its beginning would take minutes."""
    count = 20_000
    with tf.Graph().as_default() as graph:
        conv(v1.placeholder(tf.float32, (None, 8, 8, 3), "x"), read(3, 3, 3, 3), "y")
    graph_def = graph.as_graph_def()
    for index in range(count):
        node = graph_def.node.add(name=f"n{index}", op="Identity", input=[f"n{index - 1}" if index else "w/read"])
        node.attr["T"].type = tf.float32.as_datatype_enum
    next(node for node in graph_def.node if node.name == "y").input[1] = f"n{count - 1}"
    monkeypatch.setattr(large_constants, "LARGE", 0)
    asked = Counter[str]()
    monkeypatch.setattr(stand_ins, "node_of", lambda name: asked.update([name]) or name.partition(":")[0])
    result, found = leave_out_weights(graph_def, ["x:0", "y:0"])
    assert list(found) == [f"n{count - 1}"]
    assert len(result.node) == 3
    assert max(asked.values()) <= 4
