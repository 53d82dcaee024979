"""What verification compares beside the quantizers: values that only carry a scale, and the model's own outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
import tensorflow as tf

from tqt_onnx.backend_tf import regenerate
from tqt_onnx.passes import insert_qdq, remove_qdq
from tqt_onnx.verbs.check import check, tensorflow_runner
from tqt_onnx.verbs.quantize import quantize
from tqt_onnx.verify import Oracle

CONTRACTS = pytest.mark.parametrize("contract", ["layer16", "layer32"])


def moving(net, contract="layer16"):
    """A net that ends with operators that only move, with an output behind each, and a float tail."""
    built = net(contract, (4, 6, 2))
    c = built.conv("c", built.top, (2, 3), act=None)
    p = built.node("MaxPool", [c], "p", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    joined = built.node("Concat", [p, c], "joined", axis=1)
    same = built.node("Identity", [joined], "same")
    turned = built.node("Transpose", [same], "turned", perm=[3, 0, 2, 1])  # the batch is no longer in front
    built.constant("pads", np.array([0, 0, 0, 1, 0, 0, 1, 0]))
    padded = built.node("Pad", [c, "pads"], "padded")
    return built, (padded, turned, built.node("Softmax", [joined], "s", axis=1))


@CONTRACTS
def test_every_integer_tensor_and_output_of_the_qdq_model_is_there(net, assorted, contract):
    residual, probabilities = assorted(contract)
    for built, outputs in (moving(net, contract), (residual, (probabilities, "joined", "x__input"))):
        x = built.images()
        model = regenerate(built.model(*outputs), built.graph())
        received = model.everything({"x": x})
        oracle = Oracle(insert_qdq(built.model(*outputs), built.graph()))
        names = {name for name in oracle.plan.integers if name.endswith("__q")}
        expected = oracle.run({"x": x}, keep=[*names, *outputs])
        taps = model.integers({"x": x})
        assert set(received) - set(taps) == (names | set(outputs)) - set(taps)
        for name in names:
            assert received[name].dtype == (np.int32 if name in taps else np.int64)
            assert np.array_equal(received[name], expected[name].integers), name
        assert "joined__q" in names - set(taps)
        for name in outputs:
            assert received[name].dtype == np.float32
            value = expected[name]
            if isinstance(value, np.ndarray):
                assert np.allclose(received[name], value, atol=1e-6)
            else:
                assert np.array_equal(received[name], np.ldexp(value.integers, value.exponent)), name


@CONTRACTS
def test_what_is_compared_and_what_a_user_traces_are_the_same_integers(assorted, contract):
    """TensorFlow's graph optimizer may touch floats; sums of integers are exact in any order."""
    built, probabilities = assorted(contract)
    model, x = regenerate(built.model(probabilities), built.graph()), built.images()
    eager, wide = model.everything({"x": x}), model.wide_layers()
    run = tf.function(
        lambda image: (found := model._tapped({"x": image}, wide)) and (taps_of(found), found.outputs), autograph=False
    )
    traced, outputs = run(tf.constant(x))
    assert traced and set(traced) <= set(eager)
    for name, tensor in traced.items():
        assert np.array_equal(np.sort(eager[name].ravel()), np.sort(tensor.numpy().ravel())), name
    assert np.allclose(eager[probabilities], outputs[probabilities], atol=1e-6)


def taps_of(found):
    return {name: laid.tensor for name, laid in (found.quantized | found.carried).items()}


@pytest.mark.parametrize("pole", [-8, -9])
def test_many_slices_are_run_alike(pole):
    """`|1 / (x + 129) - 2^pole|`: the reciprocal that TensorFlow's graph optimizer writes for it is a hair off, on a tie."""
    weights = ", ".join(str(weight) for weight in np.random.default_rng(0).choice([-1.0, 0.5, 1.0], 512))
    model = onnx_ir.from_onnx_text(f"""
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[N, 256] x) => (float[N, 2] y)
    <float c = {{129}}, float one = {{1}}, float pole = {{{2.0**pole}}}, float[256, 2] w = {{{weights}}}> {{
        a = Add(x, c) d = Div(one, a) s = Sub(d, pole) f = Abs(s) y = MatMul(f, w)
    }}""")
    x = np.tile(np.arange(-128, 128, dtype=np.float32), (40, 1))
    quantized = quantize(model, x[:4], method="max").model
    result = check(quantized, x, engines=("oracle", "ort", "tf"), batch_size=2)
    assert result.ok and result.not_certified == () and result.images == 40
    (table,) = (layer for layer in result.certificates if layer.op_type == "Table")
    assert table.promised


def ending_with(net, op):
    """Conv -> one moving operator that is the output, with the quantizers written, and images."""
    built = net(shape=(4, 4, 3))
    c = built.conv("c", built.top, (3, 4), act=None)
    options = {"perm": [0, 2, 3, 1]} if op == "Transpose" else {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4}
    y = built.node(op, [c], "y", **options)
    return insert_qdq(built.model(y), built.graph()), built.images()


def change(model, op, **attributes):
    """A copy with other attributes in its last node of a kind."""
    copy = model.clone()
    node = [node for node in copy.graph if node.op_type == op][-1]
    for name, value in attributes.items():
        node.attributes[name] = onnx_ir.AttrInt64s(name, value)
    return copy


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("Transpose", {"perm": [0, 3, 2, 1]}), ("MaxPool", {"kernel_shape": [1, 1], "pads": [0] * 4})],
)
def test_a_change_behind_the_last_quantizer_is_found_and_named(net, op, attributes):
    model, x = ending_with(net, op)
    whole = check(model, x, engines=("oracle", "tf"))
    assert whole.ok
    assert whole.not_compared == ()
    mutant = check(model, x, engines=("oracle", "tf"), copies={"tf": change(model, op, **attributes)})
    assert not mutant.ok
    assert [(found.engine, found.tensor) for found in mutant.differences] == [("tf", "y__q"), ("tf", "y")]


def test_the_runner_gives_the_outputs_that_the_model_predicts(net):
    built, outputs = moving(net)
    model, x = insert_qdq(built.model(*outputs), built.graph()), built.images(2)
    received = tensorflow_runner(model)({"x": x})
    assert {name: received[name].shape for name in outputs} == {"padded": (2, 3, 5, 7), "turned": (6, 2, 4, 6), "s": (2, 6, 4, 6)}
    lowered, graph = remove_qdq(model)
    expected = regenerate(lowered, graph)(x)
    for name in outputs:
        assert np.array_equal(received[name], expected[name]), name
