"""A small Keras network with everything the road has, its files, and Q/DQ copies of it with one fault each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir

from tqt_onnx.ir import QUANTIZERS_KEY, QuantizerGraph, load, quantizers_of, save

QUANTIZED = {
    "layer16": (),
    "layer32": ("--layer-bits", "32"),
    "int4": ("--weight-bits", "-4", "--activation-bits", "-8", "--layer-bits", "-16"),
    "int4_layer32": ("--weight-bits", "4", "--layer-bits", "32"),
}
"""File name of a quantized model -> options; Graffitist's negative widths are among them."""

RELU6 = "net/relu6/Relu6"
DEPTHWISE = "net/depthwise/BiasAdd"


def build() -> Any:
    """Conv without bias + BN + relu6, depthwise with bias, identity shortcut, relu, max pool, global average, dense."""
    import keras
    from keras import layers

    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x))
    x = layers.ReLU(6.0, name="relu6")(x)
    x = layers.Add(name="add")([x, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
    x = layers.MaxPooling2D(2, name="max")(layers.ReLU(name="relu")(x))
    model = keras.Model(inputs, layers.Dense(3, name="dense")(layers.GlobalAveragePooling2D(name="pool")(x)), name="net")
    rng = np.random.default_rng(0)
    model.set_weights(
        [
            rng.uniform(0.5, 1.5, weight.shape) if weight.path.endswith(("variance", "gamma")) else rng.normal(0, 0.6, weight.shape)
            for weight in model.weights
        ]
    )
    return model


def write_road(folder: Path, run: Callable[[list[str]], int]) -> None:
    """`net.keras`, data, `net.onnx` and the four quantized models, by the command line.

    The random weights are what they are; data labels are the float network's own answers, so its accuracy is 1.
    """
    from tqt_onnx.frontend_tf.quiet import quiet
    from tqt_onnx.verify import run_optimized

    with quiet():
        build().save(folder / "net.keras")
    rng = np.random.default_rng(1)
    np.save(folder / "calibration.npy", (2 * rng.normal(size=(16, 8, 8, 3))).astype(np.float32))
    assert run(["convert", str(folder / "net.keras"), "-o", str(folder / "net.onnx")]) == 0
    x = (2 * rng.normal(size=(24, 8, 8, 3))).astype(np.float32)
    logits = run_optimized(load(folder / "net.onnx"), {"image": x})["dense"]
    np.savez(folder / "test.npz", x=x, y=logits.argmax(axis=1))
    for name, options in QUANTIZED.items():
        command = ["quantize", str(folder / "net.onnx"), "-o", str(folder / f"{name}.onnx")]
        assert run([*command, "--calibration", str(folder / "calibration.npy"), *options]) == 0


def initializer(model: onnx_ir.Model, name: str) -> np.ndarray[Any, Any]:
    """A writable copy of a constant."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return np.array(tensor.numpy())


def set_constant(value: onnx_ir.Value, array: np.ndarray[Any, Any]) -> None:
    assert value.const_value is not None
    value.const_value = onnx_ir.tensor(array, dtype=value.const_value.dtype, name=value.name)


def own_constant(model: onnx_ir.Model, node: onnx_ir.Node, index: int, array: np.ndarray[Any, Any]) -> None:
    """Gives one node an initializer of its own instead of a shared one."""
    value = onnx_ir.Value(name=f"{node.name}__mutated{index}", const_value=onnx_ir.tensor(array))
    value.type, value.shape = onnx_ir.TensorType(value.const_value.dtype), onnx_ir.Shape(array.shape)  # type: ignore[union-attr]
    model.graph.initializers[value.name or ""] = value
    node.replace_input_with(index, value)


def rewrite_quantizer(model: onnx_ir.Model, value: str, **fields: Any) -> None:
    graph = quantizers_of(model)
    assert graph is not None
    quantizers = tuple(replace(q, **fields) if q.value == value else q for q in graph.quantizers)
    model.metadata_props[QUANTIZERS_KEY] = QuantizerGraph(graph.contract, quantizers).to_json()


def depthwise_weight(model: onnx_ir.Model) -> onnx_ir.Value:
    """The integer constant behind the depthwise layer's weights."""
    quantizer = next(node for node in model.graph if node.outputs[0].name in (f"{DEPTHWISE}__float", f"{DEPTHWISE}__acc__float"))
    dequantize = quantizer.inputs[1].producer()  # type: ignore[union-attr]
    stored = dequantize.inputs[0]  # type: ignore[union-attr]
    assert stored is not None
    return stored


def flip_weight(model: onnx_ir.Model) -> None:
    """The last bit of one depthwise weight."""
    stored = depthwise_weight(model)
    array = initializer(model, stored.name or "")
    array[1, 0, 1, 1] = int(array[1, 0, 1, 1]) ^ 1
    set_constant(stored, array)


def move_exponent(model: onnx_ir.Model) -> None:
    """The exponent of the relu6's quantizer, one more: in its Q, its DQ, its bound, the biases derived from it, and the record."""
    graph = quantizers_of(model)
    assert graph is not None
    own = graph.by_value()[RELU6]
    moved = {q.value: q.decided_exponent + 1 for q in graph.quantizers if q is own or own.id in (q.derived_from or ())}
    for node in model.graph:
        value = (node.outputs[0].name or "").removesuffix("__r").removesuffix("__q")
        if value in moved and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            own_constant(model, node, 1, np.asarray(np.ldexp(np.float32(1), moved[value]), np.float32))
    quantizers = tuple(replace(q, exponent=moved.get(q.value, q.exponent)) for q in graph.quantizers)
    changed = QuantizerGraph(graph.contract, quantizers)
    model.metadata_props[QUANTIZERS_KEY] = changed.to_json()
    clip = next(node for node in model.graph if node.outputs[0].name == f"{RELU6}__q")
    own_constant(model, clip, 2, np.asarray(changed.by_value()[RELU6].upper, np.uint8))


def lower_bound(model: onnx_ir.Model) -> None:
    """The integer bound of the relu6, one less: in its Clip and the recorded graph."""
    clip = next(node for node in model.graph if node.op_type == "Clip")
    bound = clip.inputs[2]
    assert bound is not None and bound.const_value is not None
    integer = int(bound.const_value.numpy()) - 1
    own_constant(model, clip, 2, np.asarray(integer, np.uint8))
    graph = quantizers_of(model)
    assert graph is not None
    rewrite_quantizer(model, RELU6, limit=float(np.ldexp(integer, graph.by_value()[RELU6].decided_exponent)))


FAULTS = {"weight": flip_weight, "exponent": move_exponent, "bound": lower_bound}


def write_mutant(source: Path, target: Path, fault: str) -> tuple[str, str]:
    """Writes a copy with one fault; returns the first value in which it shows, and the integer tensor in which an ONNX engine
    sees it first (a relu6 has two: `__r` in front of its bound, `__q` behind it)."""
    model = load(source)
    FAULTS[fault](model)
    save(model, target)
    if fault == "weight":
        value = DEPTHWISE if source.stem.endswith("layer32") else f"{DEPTHWISE}__acc"
        return value, f"{value}__q"
    return RELU6, f"{RELU6}__r" if fault == "exponent" else f"{RELU6}__q"
