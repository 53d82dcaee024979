"""Models without the data of their large initializers: what is left out, and that it comes back as it was."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest

from tqt_onnx.ir import ModelError, by_reference, detached, is_large, load, reference, save, store
from tqt_onnx.ir.outline import completed, outline

X = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)


def proto(elements: int = 64 * 300) -> onnx.ModelProto:
    text = """
        <ir_version: 10, opset_import: ["" : 21], producer_name: "test", metadata_props: ["a": "b"]>
        g (float[n,64] x) => (float[n,m] y) <int64[2] shape = {-1, 64}> { r = Reshape(x, shape) y = MatMul(r, w) }
    """
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(1).normal(size=elements).astype(np.float32).reshape(64, -1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def test_an_outline_has_large_initializers_as_inputs_and_the_rest_as_it_was() -> None:
    model = proto()
    found = outline(model)
    assert [value.name for value in found.graph.input] == ["x", "w"]
    assert [tensor.name for tensor in found.graph.initializer] == ["shape"]
    assert found.ByteSize() < 1000 < model.ByteSize()
    assert completed(found, model.graph.initializer, ["x"]) == model


def test_an_outline_of_a_small_model_is_a_copy() -> None:
    model = proto(64 * 2)
    assert outline(model) == model
    assert outline(model) is not model


def test_an_initializer_that_is_an_input_too_is_named_once() -> None:
    model = proto()
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [64, 300]))
    found = outline(model)
    assert [value.name for value in found.graph.input] == ["x", "w"]
    assert completed(found, model.graph.initializer, ["x", "w"]) == model


@pytest.mark.parametrize("field", ["float_data", "external_data"])
def test_what_is_not_plain_bytes_stays_for_the_checker(field: str) -> None:
    model = proto()
    tensor = model.graph.initializer[1]
    if field == "float_data":
        tensor.float_data.append(1.0)
    else:
        tensor.external_data.add(key="location", value="elsewhere")
    assert len(outline(model).graph.initializer) == 2


def test_shapes_that_contradict_a_large_weight_are_still_found(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = proto()
    model.graph.initializer[1].dims[:] = [32, 600]
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="shape inference fails"):
        load(path)


def test_initializers_by_reference_are_the_models_own_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "_LARGE", 1024)
    model = onnx_ir.serde.deserialize_model(proto())
    before = model.graph.initializers["w"].const_value
    assert before is not None
    model.graph.initializers["w"].const_value = own = onnx_ir.Tensor(before.numpy(), name="w")
    short, arrays = by_reference(model)
    assert model.graph.initializers["w"].const_value is own
    assert list(arrays) == ["w"]
    assert np.shares_memory(arrays["w"], own.numpy())
    assert short.ByteSize() < 1000
    assert short.graph.initializer[1] == reference("w", arrays["w"])
    options = ort.SessionOptions()
    options.add_external_initializers(list(arrays), [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()])
    provider = ["CPUExecutionProvider"]
    received = ort.InferenceSession(short.SerializeToString(), options, providers=provider).run(None, {"x": X})[0]
    expected = ort.InferenceSession(proto().SerializeToString(), providers=provider).run(None, {"x": X})[0]
    assert (received == expected).all()


def test_packed_and_small_tensors_are_serialized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "_LARGE", 8)
    packed = onnx_ir.Tensor(np.zeros(64, np.uint8), dtype=onnx_ir.DataType.INT4, shape=onnx_ir.Shape([64]))
    assert not is_large(packed)
    assert is_large(onnx_ir.Tensor(np.zeros(8, np.int8)))
    assert not is_large(onnx_ir.Tensor(np.zeros(7, np.int8)))


def test_a_model_that_no_file_can_hold_is_refused_before_it_is_serialized(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(store, "LARGEST", 50_000)
    with pytest.raises(ModelError, match=r"at most 50000 bytes fit into one ONNX file \(2 GB\). Received: weights of 76816 bytes"):
        save(onnx_ir.serde.deserialize_model(proto()), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_loaded_no_longer_needs_the_file_in_memory(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = save(onnx_ir.serde.deserialize_model(proto()), tmp_path / "m.onnx")
    tensors = [value.const_value for value in load(path).graph.initializers.values()]
    assert {type(tensor) for tensor in tensors} == {onnx_ir.Tensor}
