"""A model in memory stays what it was, and gives the same result each time: a clone shares its tensors with the original."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import rename
from tqt_onnx.passes import InferShapes, lower, optimize
from tqt_onnx.passes.lift_constants import LiftConstants
from tqt_onnx.verbs.quantize import quantize

RNG = np.random.default_rng(3)
IMAGES = RNG.normal(size=(4, 3, 6, 6)).astype(np.float32)
WEIGHT = {"w": RNG.normal(size=(4, 3, 1, 1)).astype(np.float32)}
TEXTS = {
    "a pool": ("g (float[n,3,6,6] x) => (float[n,4,1,1] y) { c = Conv(x, w) y = GlobalAveragePool(c) }", WEIGHT),
    "a bias": (
        "g (float[n,3,6,6] x) => (float[n,4,6,6] y) { c = Conv(x, w, b) y = Relu(c) }",
        WEIGHT | {"b": RNG.normal(size=4).astype(np.float32)},
    ),
    "a Constant node": (
        "g (float[n,3,6,6] x) => (float[n,4,6,6] y) { k = Constant<value = float[1] {0.5}>() m = Mul(x, k) y = Conv(m, w) }",
        WEIGHT,
    ),
}


def serialized(model: onnx_ir.Model) -> bytes:
    return onnx_ir.serde.serialize_model(model).SerializeToString(deterministic=True)


def tensor_names(model: onnx_ir.Model) -> list[str | None]:
    return [None if value.const_value is None else value.const_value.name for value in model.graph.initializers.values()]


@pytest.mark.parametrize("name", TEXTS)
def test_quantizing_twice_gives_the_same_and_changes_nothing(onnx_text, name):
    model = onnx_text(*TEXTS[name])
    before, names = serialized(model), tensor_names(model)
    first, second = (quantize(model, {"x": IMAGES}) for _ in range(2))
    assert tensor_names(model) == names == list(model.graph.initializers)
    assert serialized(model) == before
    assert serialized(first.model) == serialized(second.model)
    assert not second.float_layers


@pytest.mark.parametrize("name", TEXTS)
def test_lowering_a_clone_leaves_the_names_of_shared_tensors(onnx_text, name):
    model = onnx_text(*TEXTS[name])
    clone = model.clone()
    LiftConstants().apply(clone)
    optimize(clone)
    lower(clone, "layer16")
    assert tensor_names(model) == list(model.graph.initializers)
    for node in model.graph:
        if node.op_type == "Constant":
            assert node.attributes["value"].as_tensor().name in ("", None)


def test_shapes_are_inferred_whatever_a_tensor_calls_itself(onnx_text):
    """A tensor has a name of its own beside that of its value; another tool's model may share it."""
    model = onnx_text(
        "g (float[n,3,6,6] x) => (float[n,4,a,b] y) { c = Conv(x, w) y = Reshape(c, s) }", WEIGHT | {"s": np.int64([0, 4, 9, 4])}
    )
    for value in model.graph.initializers.values():
        value.const_value.name = "another"
    for node in model.graph:
        node.outputs[0].shape = None
    InferShapes().apply(model)
    assert [str(node.outputs[0].shape) for node in model.graph] == ["[n,4,6,6]", "[n,4,9,4]"]


def test_a_renamed_constant_gets_a_tensor_of_its_own(onnx_text):
    model = onnx_text(*TEXTS["a bias"])
    clone = model.clone()
    rename(clone.graph.initializers["w"], "other")
    assert clone.graph.initializers["other"].const_value.name == "other"
    assert model.graph.initializers["w"].const_value.name == "w"
    assert (clone.graph.initializers["other"].const_value.numpy() == WEIGHT["w"]).all()
