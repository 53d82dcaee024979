"""Third-party networks the whole road: converted, quantized in both contracts, compared integer by integer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.ir import compute_nodes

pytestmark = pytest.mark.real

RESNET = "resnet8_cifar10.h5"
MOBILENET_25 = "mobilenet_v1_0.25_128_frozen.pb"
MOBILENET_75 = "mobilenet_v1_0.75_224.keras"
VWW = "vww_mobilenet_v1_0.25_96.h5"

CONTRACTS = {"layer16": BitWidths(), "layer32": BitWidths(layer=32)}


@pytest.fixture(name="converted", scope="module")
def conversions(data: Path) -> Any:
    """File -> conversion, each made once."""
    made: dict[str, Any] = {}

    def convert(name: str) -> Any:
        if name not in made:
            made[name] = tqt_onnx.convert(data / "models" / name)
        return made[name]

    return convert


def examples(data: Path, model: Any, count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Images as the network is fed with them."""
    shape = tuple(int(dim) for dim in list(model.graph.inputs[0].shape)[1:])
    cifar = shape == (32, 32, 3)
    source = data / "images" / ("cifar10_train.zip" if cifar else "imagenet")
    preset = "none" if cifar else "signed_unit"
    array: np.ndarray[Any, Any] = tqt_onnx.open_dataset(
        source, input_shape=shape, preprocess=preset, limit=count, seed=seed
    ).array()
    return array


@pytest.mark.parametrize(("name", "layers"), [(RESNET, 10), (MOBILENET_25, 28), (MOBILENET_75, 28), (VWW, 28)])
def test_convert_agrees_and_leaves_nothing_beside_the_layers(converted: Any, name: str, layers: int) -> None:
    conversion = converted(name)
    assert conversion.ok
    assert conversion.difference < 1e-4
    found = Counter(node.op_type for node in conversion.model.graph)
    assert found["Conv"] + found["Gemm"] == len(list(compute_nodes(conversion.model.graph))) == layers
    assert found["Transpose"] <= 1
    assert found["Mul"] == found["BatchNormalization"] == found["Identity"] == found["Pad"] == 0
    assert found["Add"] == (3 if name == RESNET else 0)
    for node in conversion.model.graph:
        if node.op_type == "Add":
            assert not any(value.is_initializer() for value in node.inputs)


def agrees(quantization: Any, images: np.ndarray[Any, Any], engines: tuple[str, ...] = ("oracle", "ort")) -> Any:
    """`check`, with what holds for every one of these networks."""
    result = tqt_onnx.check(quantization.model, images, engines=engines)
    assert result.differences == result.not_certified == result.not_compared == ()
    assert result.ok and result.certified
    assert quantization.float_layers == ()
    assert len(result.certificates) >= len([q for q in quantization.graph.quantizers if q.role == "weight"])
    assert all(result.integers[engine] > 0 or engine.startswith("ort-optimized") for engine in result.engines)
    return result


@pytest.mark.parametrize("weight", [8, 4])
@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("name", [RESNET, MOBILENET_25])
def test_every_engine_computes_the_same_integers(data: Path, converted: Any, name: str, contract: str, weight: int) -> None:
    model = converted(name).model
    bits = BitWidths(weight=weight, layer=CONTRACTS[contract].layer)
    quantization = tqt_onnx.quantize(model, examples(data, model, 8), bits=bits)
    engines = ("oracle", "ort", "tf") if weight == 8 else ("oracle", "ort")
    agrees(quantization, examples(data, model, 4, seed=1), engines)


def test_int4_keeps_eight_bits_at_both_ends(data: Path, converted: Any) -> None:
    model = converted(MOBILENET_25).model
    quantization = tqt_onnx.quantize(model, examples(data, model, 2), bits=BitWidths(weight=4), parallel=True, method="max")
    widths = [quantizer.bits for quantizer in quantization.graph.quantizers if quantizer.role == "weight"]
    assert widths == [8, *[4] * 26, 8]


def test_the_large_mobilenet_runs_in_integers_alone(data: Path, converted: Any) -> None:
    model = converted(MOBILENET_75).model
    quantization = tqt_onnx.quantize(model, examples(data, model, 2), bits=BitWidths(layer=32))
    result = agrees(quantization, examples(data, model, 2, seed=1))
    fused = result.fused
    assert fused["QLinearConv"] == 29  # 28 layers and the pool
    assert not set(fused) & {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def test_person_detection(data: Path, converted: Any) -> None:
    model = converted(VWW).model
    for bits in CONTRACTS.values():
        quantization = tqt_onnx.quantize(model, examples(data, model, 4), bits=bits)
        agrees(quantization, examples(data, model, 2, seed=1))


@pytest.mark.parametrize("contract", CONTRACTS)
def test_static_int8_of_resnet8_stays_near_the_float_network(data: Path, converted: Any, contract: str) -> None:
    """A weak bound on a fifth of the images, lest a defect hide; `benchmarks/accuracy.py` measures."""
    model = converted(RESNET).model
    quantized = tqt_onnx.quantize(model, examples(data, model, 100), bits=CONTRACTS[contract]).model
    result = tqt_onnx.evaluate({"float": model, "int8": quantized}, data / "images" / "cifar10_test.zip", limit=1000, seed=0)
    plain, integer = result.models
    assert plain.count == 1000
    assert plain.top1_share > 0.70
    assert integer.top1_share > plain.top1_share - 0.03
    assert result.differences[0].agreement > 0.9
