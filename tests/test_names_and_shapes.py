"""O3: whatever a network ends with, its inputs and outputs keep names, order, shapes and dtypes on the whole road.

One small TensorFlow graph for each way to end. Every graph is converted (batch norms folded, and kept), quantized, and
compared bit for bit between the oracle and onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

tf = pytest.importorskip("tensorflow")

from tf_networks import Network, graph_def  # noqa: E402

from tqt_onnx.verbs.check import check  # noqa: E402
from tqt_onnx.verbs.convert import convert  # noqa: E402
from tqt_onnx.verbs.quantize import quantize  # noqa: E402

Boundary = tuple[tuple[str, tuple[int | None, ...], str], ...]
Build = Callable[[Network, Any], Any]


def named(**ends: Build) -> tuple[Build, tuple[str, ...]]:
    """A network whose outputs are the Identities `name` of what each function makes of the same body."""

    def build(network: Network, x: Any) -> None:
        body = tf.nn.relu(network.conv(x))
        for name, end in ends.items():
            tf.identity(end(network, body), name=name)

    return build, tuple(ends)


def last(end: Build, *outputs: str) -> tuple[Build, tuple[str, ...]]:
    """A network whose outputs are operators themselves, under the names that `end` gives them (`y` if nothing is said)."""
    return lambda network, x: end(network, tf.nn.relu(network.conv(x))), outputs or ("y",)


def flat(x: Any) -> Any:
    return tf.reduce_mean(x, (1, 2))


def fused(form: str, layer: Build) -> tuple[Build, tuple[str, ...]]:
    return last(lambda net, x: net.norm(layer(net, x), form, name="y"))


def twice(x: Any) -> None:
    tf.identity(x, name="first")
    tf.identity(x, name="second")


def leaky(x: Any) -> Any:
    return tf.maximum(x * 0.1, x, name="y")


ADDEND = np.float32([0.5, -1, 2, 0.25])

ENDS: dict[str, tuple[Build, tuple[str, ...]]] = {
    "Add": last(lambda net, x: tf.raw_ops.Add(x=net.conv(x), y=net.conv(x, kernel=1), name="y")),
    "AddV2": last(lambda net, x: tf.raw_ops.AddV2(x=net.conv(x), y=net.conv(x, kernel=1), name="y")),
    "Add with a 1-D addend": last(lambda net, x: tf.raw_ops.Add(x=net.conv(x), y=ADDEND, name="y")),
    "AddV2 with a 1-D addend first": last(lambda net, x: tf.raw_ops.AddV2(x=ADDEND, y=net.conv(x), name="y")),
    "Add with a 1-D addend behind relu": last(lambda net, x: tf.raw_ops.AddV2(x=tf.nn.relu(net.conv(x)), y=ADDEND, name="y")),
    "BiasAdd": last(lambda net, x: net.bias(net.conv(x), name="y")),
    "BiasAdd behind relu": last(lambda net, x: net.bias(tf.nn.relu(net.conv(x)), name="y")),
    "MatMul": last(lambda net, x: net.dense(flat(x), name="y")),
    "MatMul, BiasAdd": last(lambda net, x: net.bias(net.dense(flat(x)), name="y")),
    "MatMul, Add": last(lambda net, x: tf.add(net.dense(flat(x)), ADDEND, name="y")),
    "Conv2D": last(lambda net, x: net.conv(x, name="y")),
    "Conv2D with stride and padding": last(lambda net, x: net.conv(x, strides=2, padding="VALID", name="y")),
    "Conv2D, relu": last(lambda net, x: tf.nn.relu(net.conv(x), name="y")),
    "Conv2D, BiasAdd, relu6": last(lambda net, x: tf.nn.relu6(net.bias(net.conv(x)), name="y")),
    "depthwise": last(lambda net, x: net.depthwise(x, name="y")),
    "depthwise, BiasAdd": last(lambda net, x: net.bias(net.depthwise(x), name="y")),
    "Conv2DBackpropInput": last(lambda net, x: net.transposed(x, name="y")),
    "Conv2DBackpropInput, BiasAdd": last(lambda net, x: net.bias(net.transposed(x), name="y")),
    "Conv2DBackpropInput, batch norm": last(lambda net, x: net.norm(net.transposed(x), name="y")),
    **{f"batch norm {form} behind conv": fused(form, lambda net, x: net.conv(x)) for form in ("V1", "V2", "V3")},
    **{
        f"batch norm {form} behind depthwise, BiasAdd": fused(form, lambda net, x: net.bias(net.depthwise(x)))
        for form in ("V1", "V2", "V3")
    },
    "batch norm behind relu": last(lambda net, x: net.norm(x, name="y")),
    "batch norm of vectors": last(lambda net, x: net.norm(net.dense(flat(x)), "small"), "batchnorm/add_1"),
    "batch norm of vectors behind relu": last(lambda net, x: net.norm(tf.nn.relu(net.dense(flat(x))), "small"), "batchnorm/add_1"),
    "batch norm as small operators": last(lambda net, x: net.norm(net.conv(x), "small"), "batchnorm/add_1"),
    "batch norm as sqrt and division": named(y=lambda net, x: net.norm(net.conv(x), "sqrt")),
    "batch norm V3 NCHW": last(
        lambda net, x: net.norm(tf.transpose(net.conv(x), (0, 3, 1, 2)), "V3 NCHW", name="y")
    ),
    "factor and term": last(lambda net, x: tf.add(tf.multiply(x, ADDEND), ADDEND, name="y")),
    "average pool": last(lambda net, x: tf.nn.avg_pool2d(x, 2, 2, "VALID", name="y")),
    "average pool of SAME padding": last(lambda net, x: tf.nn.avg_pool2d(net.conv(x), 3, 2, "SAME", name="y")),
    "mean": last(lambda net, x: tf.reduce_mean(x, (1, 2), name="y")),
    "mean that keeps dimensions": last(lambda net, x: tf.reduce_mean(x, (1, 2), keepdims=True, name="y")),
    "max pool": last(lambda net, x: tf.nn.max_pool2d(net.conv(x), 2, 2, "SAME", name="y")),
    "maximum": last(lambda net, x: tf.reduce_max(net.conv(x), (1, 2), name="y")),
    "softmax": last(lambda net, x: tf.nn.softmax(net.bias(net.dense(flat(x))), name="y")),
    "softmax, reshape": last(lambda net, x: tf.reshape(tf.nn.softmax(net.dense(flat(x))), (-1, 4), name="y")),
    "class index": last(lambda net, x: tf.argmax(net.dense(flat(x)), 1, name="y")),
    "sigmoid": last(lambda net, x: tf.sigmoid(net.conv(x), name="y")),
    "LeakyRelu": last(lambda net, x: tf.nn.leaky_relu(net.conv(x), 0.1, name="y")),
    "LeakyRelu as a maximum": last(lambda net, x: leaky(net.bias(net.conv(x)))),
    "identity": last(lambda net, x: tf.identity(net.conv(x), name="y")),
    "two identities": last(lambda net, x: tf.identity(tf.identity(net.conv(x)), name="y")),
    "reshape": last(lambda net, x: tf.reshape(net.conv(x), (-1, 64, 4), name="y")),
    "flatten": last(lambda net, x: tf.reshape(net.conv(x), (-1, 256), name="y")),
    "squeeze": last(lambda net, x: tf.squeeze(net.conv(x, kernel=8, padding="VALID"), (1, 2), name="y")),
    "transpose": last(lambda net, x: tf.transpose(net.conv(x), (0, 3, 1, 2), name="y")),
    "pad": last(lambda net, x: tf.pad(net.conv(x), ((0, 0), (1, 1), (2, 0), (0, 0)), name="y")),
    "concat": last(lambda net, x: tf.concat((net.conv(x), tf.nn.relu(net.conv(x, 2))), 3, name="y")),
    "several outputs, not in the order of the graph": named(
        b=lambda net, x: net.conv(x), a=lambda net, x: net.dense(flat(x)), c=lambda net, x: tf.nn.relu(net.depthwise(x))
    ),
    "an output feeds another layer": last(lambda net, x: net.conv(net.bias(net.conv(x), name="inside"), name="y"), "y", "inside"),
    "an output feeds a relu": last(lambda net, x: tf.nn.relu(net.bias(net.conv(x), name="sum"), name="y"), "sum", "y"),
    "an output feeds a batch norm": last(lambda net, x: net.norm(net.conv(x, name="sum"), name="y"), "y", "sum"),
    "an output feeds a batch norm of small operators": last(
        lambda net, x: net.norm(net.bias(net.conv(x), name="sum"), "small"), "batchnorm/add_1", "sum"
    ),
    "an output inside a batch norm": last(
        lambda net, x: net.norm(net.conv(x), "small"), "batchnorm/mul_1", "batchnorm/add_1"
    ),
    "an output feeds a reshape": last(lambda net, x: tf.reshape(net.conv(x, name="image"), (-1, 256), name="y"), "y", "image"),
    "an output feeds a transpose": last(
        lambda net, x: tf.transpose(net.conv(x, name="image"), (0, 3, 1, 2), name="y"), "image", "y"
    ),
    "an output feeds a pool and a layer": last(
        lambda net, x: net.conv(tf.nn.max_pool2d(tf.nn.relu(net.conv(x), name="act"), 2, 2, "SAME"), name="y"), "act", "y"
    ),
    "an output feeds an Add": last(lambda net, x: tf.add(net.conv(x, name="branch"), x, name="y"), "y", "branch"),
    "logits and softmax": last(lambda net, x: tf.nn.softmax(net.dense(flat(x), name="logits"), name="y"), "y", "logits"),
    "one tensor under two names": last(lambda net, x: twice(net.conv(x)), "second", "first"),
    "one tensor under its own name and another": last(
        lambda net, x: tf.identity(net.conv(x, name="own"), name="other"), "other", "own"
    ),
    "the input under another name": (
        lambda net, x: (tf.identity(x, name="again"), net.conv(x, name="y")),
        ("again", "y"),
    ),
}  # fmt: skip

DTYPES = {tf.float32: "FLOAT", tf.int64: "INT64"}
IMAGES = np.random.default_rng(1).uniform(-1, 1, (4, 8, 8, 3)).astype(np.float32)


def boundary(values: Sequence[onnx_ir.Value]) -> Boundary:
    """Names, shapes (None for the batch) and dtypes in order."""
    return tuple((str(v.name), tuple(d if isinstance(d, int) else None for d in v.shape or ()), str(v.dtype)) for v in values)


def expected(definition: Any, outputs: Sequence[str]) -> tuple[Boundary, Boundary]:
    """What TensorFlow says of the same ends."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    ends = [[graph.get_tensor_by_name(f"{name}:0") for name in names] for names in (("x",), outputs)]
    inputs, results = (
        tuple((t.name[:-2], tuple(None if i == 0 else d for i, d in enumerate(t.shape)), DTYPES[t.dtype]) for t in side)
        for side in ends
    )
    return inputs, results


@pytest.mark.parametrize("end", ENDS)
def test_boundary_stays_and_integers_agree(end: str, tmp_path: Path) -> None:
    build, outputs = ENDS[end]
    definition = graph_def(build, end=None)
    path = tmp_path / "net.pb"
    path.write_bytes(definition.SerializeToString())
    wanted = expected(definition, outputs)
    for keep in (False, True):
        conversion = convert(path, inputs=["x"], outputs=list(outputs), keep_batch_norm=keep)
        assert conversion.ok, conversion.differences
        model = conversion.model
        assert (boundary(model.graph.inputs), boundary(model.graph.outputs)) == wanted
        if keep and not any(node.op_type == "BatchNormalization" for node in model.graph):
            break  # the same model again
        quantized = quantize(model, IMAGES).model
        assert (boundary(quantized.graph.inputs), boundary(quantized.graph.outputs)) == wanted
        result = check(quantized, IMAGES, engines=("oracle", "ort"))
        assert result.exact and result.ok, (result.differences, result.floats)
