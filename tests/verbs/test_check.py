"""`check` with a float model, and without data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

import tqt_onnx
from tqt_onnx import BitWidths, ModelError, UsageError
from tqt_onnx.ir import save
from tqt_onnx.verbs.show import show_check, show_missing_certificates
from tqt_onnx.verify import run_optimized

Array = np.ndarray[Any, Any]

NETWORK = """<ir_version: 10, opset_import: ["" : 21]> net (float[N,2,4,4] x) => (float[N,3] p)
  <float[2,2,1,1] w = {0.7, -0.4, 0.3, 1.1}, float[2] b = {0.1, -0.2}, float[2,1,3,3] d = {0.1, 0.2, -0.1, 0.4, 0.5, 0.3, -0.2,
   0.2, 0.1, -0.3, 0.1, 0.6, 0.2, -0.7, 0.1, 0.4, 0.1, 0.2}, float[2,3] g = {0.5, -1.0, 0.3, 0.8, 0.2, -0.6},
   int64[2] flat = {0, -1}>
{
  c = Conv<kernel_shape = [1, 1]>(x, w, b)
  r = Relu(c)
  e = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2>(r, d)
  a = Add(e, r)
  m = GlobalAveragePool(a)
  f = Reshape(m, flat)
  l = MatMul(f, g)
  p = Softmax<axis = 1>(l)
}"""


def network() -> onnx_ir.Model:
    return onnx_ir.from_onnx_text(NETWORK)


@pytest.fixture(name="x", scope="module")
def inputs() -> Array:
    return np.random.default_rng(0).normal(size=(40, 2, 4, 4)).astype(np.float32)


@pytest.fixture(name="model", scope="module", params=[16, 32])
def quantized(request: pytest.FixtureRequest, x: Array) -> onnx_ir.Model:
    return tqt_onnx.quantize(network(), x, bits=BitWidths(layer=request.param)).model


def test_every_quantized_tensor_is_matched_by_name(model: onnx_ir.Model, x: Array, tmp_path: Path) -> None:
    """Accumulators, inputs, rescaled branches and reciprocals too: the float model is lowered as the quantized one was."""
    floats = network()
    before = onnx_ir.serde.serialize_model(floats).SerializeToString()
    result = tqt_onnx.check(model, x, float_model=floats, batch_size=16)
    assert onnx_ir.serde.serialize_model(floats).SerializeToString() == before
    assert result.ok
    assert result.unmatched == ()
    graph = tqt_onnx.inspect(model).graph
    assert graph is not None
    assert [noise.tensor for noise in result.sqnr] == [*(quantizer.value for quantizer in graph.quantizers), "p"]
    save(floats, tmp_path / "net.onnx")
    again = tqt_onnx.check(model, x, float_model=tmp_path / "net.onnx", batch_size=7)
    for one, other in zip(result.sqnr, again.sqnr, strict=True):
        assert (one.tensor, one.count) == (other.tensor, other.count)
        assert other.noise == pytest.approx(one.noise, rel=1e-9)


def test_the_noise_of_the_output_is_that_of_what_users_run(model: onnx_ir.Model, x: Array) -> None:
    plain, rounded = (run_optimized(one, {"x": x})["p"].astype(np.float64) for one in (network(), model))
    expected = 10 * np.log10((plain**2).sum() / ((rounded - plain) ** 2).sum())
    output = tqt_onnx.check(model, x, float_model=network()).sqnr[-1]
    assert (output.tensor, output.role, output.count) == ("p", "output", 40 * 3)
    assert output.sqnr_db == pytest.approx(expected, abs=0.01)  # float32 softmax against float64


def test_fewer_bits_make_more_noise(x: Array) -> None:
    def own(bits: int) -> dict[str, float]:
        model = tqt_onnx.quantize(network(), x, bits=BitWidths(weight=bits, activation=bits, relu=bits), method="max").model
        result = tqt_onnx.check(model, x, float_model=network())
        return {noise.tensor: noise.sqnr_db for noise in result.sqnr if noise.role in ("activation", "input")}

    eight, six = own(8), own(6)
    assert eight.keys() == six.keys()
    assert all(eight[name] > six[name] + 6 for name in eight if name != "m"), (eight, six)


def test_what_is_no_float_model_is_refused(model: onnx_ir.Model, x: Array) -> None:
    with pytest.raises(ModelError, match="the float model is quantized itself"):
        tqt_onnx.check(model, x, float_model=model)
    other = onnx_ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,2,4,4] x) => (float[N,2,4,4] y)
        <float[2,2,1,1] v = {1.0, 2.0, 3.0, 4.0}> { y = Conv<kernel_shape = [1, 1]>(x, v) }"""
    )
    result = tqt_onnx.check(model, x, float_model=other)  # nothing but the input has a name in common
    assert [noise.tensor for noise in result.sqnr] == ["x__input"]
    assert "w" in {item.tensor for item in result.unmatched}


def test_without_data_there_are_certificates_and_nothing_else(
    model: onnx_ir.Model, x: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tqt_onnx.check(model)
    assert result.certificates == tqt_onnx.check(model, x).certificates
    assert (result.ok, result.certified, result.images) == (False, True, 0)
    show_check(result)
    show_missing_certificates(result)
    text = capsys.readouterr().out
    assert "nothing was run" in text
    assert f"every layer is certified ({len(result.certificates)})" in text
    assert "exact on every" not in text
    for options in ({"float_model": network()}, {"copies": {"ort": model}}):
        with pytest.raises(UsageError, match=r"on data\. Received: no data"):
            tqt_onnx.check(model, **options)  # type: ignore[arg-type]


def test_rankings_are_shown_worst_first(model: onnx_ir.Model, x: Array, capsys: pytest.CaptureFixture[str]) -> None:
    result = tqt_onnx.check(model, x, float_model=network())
    json.dumps(result.to_dict(), allow_nan=False)
    show_check(result)
    lines = capsys.readouterr().out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("Signal to noise against the float model"))
    assert f"(10 of {len(result.sqnr)} tensors)" in lines[start]
    shown = [line.split()[0] for line in lines[start + 3 : start + 13]]
    assert shown == [noise.tensor for noise in sorted(result.sqnr, key=lambda noise: noise.sqnr_db)[:10]]
    start = next(index for index, line in enumerate(lines) if line.startswith("Roundings exactly on a tie, most first"))
    worst = max(result.tie_counts, key=lambda item: item.share)
    assert lines[start + 3].split() == [worst.tensor, f"{worst.ties:,}", f"{worst.requantized:,}", f"{worst.share:.1%}"]
