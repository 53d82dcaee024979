"""The verbs as Python functions: what they take, what they leave alone, and what they give back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_network import RELU6, rewrite_quantizer

import tqt_onnx
from tqt_onnx import BitWidths, DataError, ModelError, UsageError
from tqt_onnx.verbs.convert import OutputDifference, _compare


def content(model: onnx_ir.Model) -> bytes:
    return onnx_ir.serde.serialize_model(model).SerializeToString()


@pytest.fixture(name="x", scope="module")
def images(road: Path) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.load(road / "test.npz")["x"]
    return array


def test_models_in_memory_are_left_alone(road: Path, x: np.ndarray[Any, Any]) -> None:
    model = tqt_onnx.load(road / "net.onnx")
    before = content(model)
    quantized = tqt_onnx.quantize(model, x).model
    again = content(quantized)
    tqt_onnx.inspect(model)
    tqt_onnx.inspect(quantized)
    tqt_onnx.check(quantized, x)
    tqt_onnx.evaluate({"a": model, "b": quantized}, x)
    assert (content(model), content(quantized)) == (before, again)


def test_sources_of_data_are_the_same(road: Path, x: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", image=x)
    dataset = tqt_onnx.open_dataset(tmp_path / "x.npy")
    sources = (x, {"image": x}, tmp_path / "x.npy", str(tmp_path / "x.npz"), dataset, x.astype(np.float64))
    models = [content(tqt_onnx.quantize(road / "net.onnx", source).model) for source in sources]
    assert len(set(models)) == 1


def test_limit_and_seed_choose_examples(road: Path, x: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)

    def calibrated(source: Any, **options: int) -> Any:
        return tqt_onnx.quantize(road / "net.onnx", source, method="max", **options)  # type: ignore[arg-type]

    first = calibrated(x[:5])
    assert first.images == 5
    for source in (x, {"image": x}, tmp_path / "x.npy"):
        assert content(calibrated(source, limit=5).model) == content(first.model)
    drawn = [calibrated(source, limit=5, seed=3) for source in (x, tmp_path / "x.npy")]
    assert content(drawn[0].model) == content(drawn[1].model)
    assert drawn[0].log2_thresholds != first.log2_thresholds


def test_a_seed_draws_from_arrays_by_name_too(road: Path, x: np.ndarray[Any, Any]) -> None:
    options: dict[str, Any] = {"method": "max", "limit": 5, "seed": 3}
    by_name = tqt_onnx.quantize(road / "net.onnx", {"image": x}, **options)
    assert by_name.log2_thresholds == tqt_onnx.quantize(road / "net.onnx", x, **options).log2_thresholds


@pytest.fixture(name="two", scope="module")
def two_inputs() -> onnx_ir.Model:
    """y = relu(a w) + relu(b v)."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["a", "w"], ["p"], name="p"),
            helper.make_node("Gemm", ["b", "v"], ["q"], name="q"),
            helper.make_node("Add", ["p", "q"], ["y"], name="sum"),
        ],
        "two",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(rng.normal(size=(size, 4)).astype(np.float32), name) for size, name in ((3, "w"), (2, "v"))],
    )
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def test_several_inputs_are_fed_by_name(two: onnx_ir.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    feeds = {name: rng.normal(size=(9, size)).astype(np.float32) for size, name in ((3, "a"), (2, "b"))}
    np.savez(tmp_path / "ab.npz", **feeds)
    quantization = tqt_onnx.quantize(two, tmp_path / "ab.npz")
    assert content(quantization.model) == content(tqt_onnx.quantize(two, feeds).model)
    assert tqt_onnx.check(quantization.model, tmp_path / "ab.npz", engines=("ort", "tf")).ok
    with pytest.raises(DataError, match="inputs a, b: arrays by name"):
        tqt_onnx.quantize(two, feeds["a"])
    with pytest.raises(DataError, match="one length"):
        tqt_onnx.quantize(two, {"a": feeds["a"], "b": feeds["b"][:3]})
    with pytest.raises(DataError, match=r"inputs a, b are expected\. Received: none"):
        tqt_onnx.quantize(two, {})
    with pytest.raises(DataError, match=r"input 'b': .*non-empty"):
        tqt_onnx.quantize(two, {"a": feeds["a"][:0], "b": feeds["b"][:0]} | {"a": feeds["a"]})
    for wrong in ({"a": feeds["a"]}, {**feeds, "c": feeds["a"]}, {"a": feeds["a"], "b": feeds["a"]}):
        with pytest.raises(DataError):
            tqt_onnx.quantize(two, wrong)
    for bad in (np.nan, np.inf):
        spoilt = {"a": feeds["a"], "b": np.where(np.arange(18).reshape(9, 2) == 11, np.float32(bad), feeds["b"])}
        with pytest.raises(DataError, match="row 5 holds"):
            tqt_onnx.quantize(two, spoilt)
        with pytest.raises(DataError, match="row 5 holds"):
            tqt_onnx.check(quantization.model, spoilt)
    np.savez(tmp_path / "a.npz", a=feeds["a"], z=feeds["b"])
    with pytest.raises(DataError, match=r"arrays for a, b are expected\. Received: a"):
        tqt_onnx.quantize(two, tmp_path / "a.npz")
    with pytest.raises(DataError, match="one input"):
        tqt_onnx.evaluate({"two": two}, tmp_path / "ab.npz")


def test_convert_takes_a_live_model(road: Path) -> None:
    from small_network import build

    conversion = tqt_onnx.convert(build())
    assert conversion.ok
    saved = tqt_onnx.load(road / "net.onnx")
    assert {n.op_type for n in conversion.model.graph} == {n.op_type for n in saved.graph}
    kept = tqt_onnx.convert(build(), keep_batch_norm=True)
    assert kept.ok
    assert [node.op_type for node in kept.model.graph].count("BatchNormalization") == 1
    quantized = tqt_onnx.quantize(kept.model, np.zeros((2, 8, 8, 3), np.float32)).model
    assert "BatchNormalization" not in {node.op_type for node in quantized.graph}  # B0


def test_to_keras_is_the_float_network(road: Path, x: np.ndarray[Any, Any]) -> None:
    from tqt_onnx.verify import run_optimized

    model = tqt_onnx.load(road / "net.onnx")
    expected = run_optimized(model, {"image": x})["dense"]
    received = np.asarray(tqt_onnx.to_keras(model)(x))
    assert np.abs(received - expected).max() <= 1e-5 * np.ptp(expected)


def test_evaluate_without_labels_counts_agreement(road: Path, x: np.ndarray[Any, Any]) -> None:
    files = {"float": road / "net.onnx", "int8": road / "layer16.onnx"}
    result = tqt_onnx.evaluate(files, x, batch_size=7)
    assert (result.models, result.count, result.differences[0].difference) == ((), 24, None)
    labelled = tqt_onnx.evaluate(files, road / "test.npz", batch_size=5)
    assert labelled.models[0].top1 == 24
    assert result.differences[0].agree == labelled.models[1].top1
    with pytest.raises(UsageError, match="at least one"):
        tqt_onnx.evaluate({}, x)
    with pytest.raises(DataError, match="labelled"):
        tqt_onnx.evaluate(files, x, labelled=True)


def test_a_recorded_graph_that_contradicts_the_nodes_is_refused(road: Path, x: np.ndarray[Any, Any]) -> None:
    """TensorFlow would compute what the metadata says, onnxruntime and the oracle what the nodes say."""
    for fields, message in (
        ({"exponent": -9}, "bounds|scale"),
        ({"limit": 3.0}, "bounds"),
        ({"signed": True}, "bounds|zero point"),
    ):
        model = tqt_onnx.load(road / "layer16.onnx")
        rewrite_quantizer(model, RELU6, **fields)
        with pytest.raises(ModelError, match=message):
            tqt_onnx.check(model, x, engines=("ort", "tf"))
    model = tqt_onnx.load(road / "layer16.onnx")
    model.metadata_props["tqt_onnx.contract"] = "layer32"
    with pytest.raises(ModelError, match="contract"):
        tqt_onnx.check(model, x)


def test_check_names_what_it_needs(road: Path, x: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ModelError, match="another network"):
        tqt_onnx.check(road / "layer16.onnx", x, copies={"ort": tqt_onnx.load(road / "layer32.onnx")})
    with pytest.raises(UsageError, match="does not name tf"):
        tqt_onnx.check(road / "layer16.onnx", x, copies={"tf": tqt_onnx.load(road / "layer16.onnx")})


def test_unknown_methods(road: Path, x: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UsageError, match="mse, max, klj"):
        tqt_onnx.quantize(road / "net.onnx", x, method="kl")
    with pytest.raises(UsageError, match="mse, max"):
        tqt_onnx.quantize(road / "net.onnx", x, weight_method="klj")


def test_progress_reaches_its_end(road: Path, x: np.ndarray[Any, Any]) -> None:
    seen: list[tuple[int, int, str]] = []

    def report(done: int, total: int, what: str) -> None:
        seen.append((done, total, what))

    tqt_onnx.quantize(road / "net.onnx", x, bits=BitWidths(layer=32), progress=report)
    assert seen[-1][0] == seen[-1][1]
    seen.clear()
    tqt_onnx.check(road / "layer16.onnx", x, batch_size=10, progress=report)
    tqt_onnx.evaluate({"a": road / "net.onnx"}, x, batch_size=10, progress=report)
    assert [(done, total) for done, total, _ in seen] == [(10, 24), (20, 24), (24, 24)] * 2


@pytest.mark.parametrize(
    ("ours", "expected", "ok"),
    [
        ([1.0, 2.0], [1.0, 2.0 + 5e-5], True),
        ([1.0, 2.0], [1.0, 2.001], False),
        ([1.0, 1.0], [1.0, 1.0], False),  # an output that nothing moves says nothing
        ([np.nan, 1.0], [1.0, 2.0], False),
        ([np.inf, 1.0, 2.0], [np.inf, 1.0, 2.0], True),  # both overflow
        ([np.inf, 1.0, 2.0], [3e38, 1.0, 2.0], False),
        ([np.inf, 1.0, 2.0], [-np.inf, 1.0, 2.0], False),
        ([np.inf, np.inf], [np.inf, np.inf], False),  # nothing was compared
        ([1e-38, 2e-38], [1e-38, 3e-38], False),  # nothing moved
        ([3], [3], True),  # a class index
        ([3], [4], False),
    ],
)
def test_what_counts_as_agreement(ours: list[float], expected: list[float], ok: bool) -> None:
    from tqt_onnx.verbs.convert import Conversion, _difference

    found = _difference("y", np.array(ours), np.array(expected))
    assert Conversion(None, (found,), 1e-4).ok is ok  # type: ignore[arg-type]


@pytest.mark.parametrize("parallel", [True, False])
def test_calibration_pads_with_zeros_in_front_of_a_pool(parallel: bool) -> None:
    """Joined with the pool, as onnxruntime's optimizer does it, the padding would be minus infinity and -1 the maximum."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,1,1,1] x) => (float[N,1,2,2] y)
      <float[1,1,1,1] w = {-1.0}, float[1,1,1,1] v = {1.0}, float[1] b = {0.25}, int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}>
    { c = Conv<kernel_shape = [1, 1]>(x, w) a = Pad(c, p) m = MaxPool<kernel_shape = [2, 2]>(a)
      y = Conv<kernel_shape = [1, 1]>(m, v, b) }"""
    ones = np.ones((4, 1, 1, 1), np.float32)
    result = tqt_onnx.quantize(onnx_ir.from_onnx_text(text), ones, bits=BitWidths(layer=32), method="max", parallel=parallel)
    assert result.log2_thresholds["y"] == -2.0


@pytest.mark.parametrize(
    ("passes", "layer", "message"),
    [
        ("optimize", 16, "average-pool-to-depthwise is missing; a list that ends in the recipe 'quantize'"),
        ("optimize quantize-layer32", 16, "split-bias is missing"),
        ("optimize quantize", 32, "the passes lower for layer16"),
    ],
)
def test_a_list_that_does_not_lower_for_the_contract_is_refused(
    road: Path, x: np.ndarray[Any, Any], passes: str, layer: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tqt_onnx.quantize(road / "net.onnx", x, bits=BitWidths(layer=layer), passes=passes)


@pytest.mark.parametrize(("recipe", "layer"), [("quantize", 16), ("quantize-layer32", 32)])
def test_the_recipes_by_name_are_what_quantize_does(road: Path, x: np.ndarray[Any, Any], recipe: str, layer: Any) -> None:
    bits = BitWidths(layer=layer)
    by_name = tqt_onnx.quantize(road / "net.onnx", x, bits=bits, passes=f"optimize {recipe}")
    assert content(by_name.model) == content(tqt_onnx.quantize(road / "net.onnx", x, bits=bits).model)


def test_float_noise_excuses_little() -> None:
    """A difference beyond the tolerance is accepted only where rounding the inputs alone moves the output about as far."""
    item = OutputDifference("y", difference=3e-4, output_range=1.0)
    assert not item.within(1e-4)
    assert not replace(item, noise=3e-5).within(1e-4)
    assert replace(item, noise=4e-5).within(1e-4)
    assert not replace(item, difference=2e-2, noise=1.0).within(1e-4)
    assert not replace(item, difference=float("nan"), noise=1.0).within(1e-4)


def test_a_softmax_of_large_numbers_is_compared_within_its_noise() -> None:
    """Logits of ten thousands: float32 leaves their difference open to 1e-3, which is no fault of the conversion's."""
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(256, 256)).astype(np.float32), (rng.normal(size=(256, 1)) * 1e-3).astype(np.float32)
    narrow = np.concatenate([narrow + 4, narrow[::-1] + 4], 1)
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[n,256] x) => (float[n,2] y)
              { a = MatMul(x, w) r = Relu(a) b = MatMul(r, v) y = Softmax(b) }"""
    tensors = [onnx_ir.tensor(wide, name="w"), onnx_ir.tensor(narrow, name="v")]
    model = onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(onnx_ir.from_onnx_text(text, initializers=tensors)))

    class Exact:
        """The same network in float64, and what would be wrong: a slightly other one."""

        def __init__(self, factor: float) -> None:
            self.factor = factor

        def example_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
            return {"x": (batch, 256)}

        def run(self, feeds: Any) -> dict[str, np.ndarray[Any, Any]]:
            logits = np.maximum(feeds["x"].astype(np.float64) @ wide, 0) @ (narrow * self.factor)
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            return {"y": (powers / powers.sum(-1, keepdims=True)).astype(np.float32)}

    (noisy,) = _compare(Exact(1.0), model, 1e-6)
    assert noisy.relative > 1e-6
    assert noisy.noise > 0
    assert noisy.within(1e-6)
    (wrong,) = _compare(Exact(1.1), model, 1e-6)
    assert not wrong.within(1e-6)
