"""Which calibration method is best: all of them on the real networks, on the same images, beside the float network.

    TQT_ONNX_DATA=../shared/data python benchmarks/calibration_methods.py resnet8 mobilenet25 --json /tmp/methods.json

Prints the tables of docs/calibration.md: for each network and method the share of right answers, the share of answers that are
the float network's, and the logits' signal to quantization noise in dB. Calibration and evaluation images never overlap.
Weights take their own method, `mse`, in all rows; in the column `A8` they stay float, so that activations are judged alone:
networks with depthwise layers collapse in static mode because of their weights, whatever the activations' method is.
The last table counts, over the calibration sets drawn with several seeds, how far each method is from the best one.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir
import onnxruntime

import tqt_onnx
from tqt_onnx.calibrate import calibrate
from tqt_onnx.datasets import Dataset, demo_digits, open_array
from tqt_onnx.ir import QuantizerGraph, name_of
from tqt_onnx.passes import BitWidths, annotate, insert_qdq, lower, weight_floors
from tqt_onnx.verbs.demo import train
from tqt_onnx.verify.runtime import session_options

Array = npt.NDArray[Any]
BATCH: Final = 25

_QUANTIZES_FLOAT_WEIGHTS: Final = "WeightBiasQuantization"
"""onnxruntime 1.31 takes float weights between quantized tensors for an oversight, and rounds them to 8 bits, per tensor."""


@dataclass(frozen=True)
class Network:
    """One network and its images; digits are trained here and bring their own.

    Attributes:
        model: file below the data folder.
        calibration: images to draw calibration images from.
        count: how many.
        evaluation: images to evaluate on; the same source means all others of it.
        preprocess: preset.
        label_offset: output index of class 0; None where the images' labels are not the network's classes.
    """

    model: str
    calibration: str = ""
    count: int = 100
    evaluation: str = ""
    preprocess: str = "none"
    label_offset: int | None = 0


_PHOTOS: Final = "images/imagenet"
NETWORKS: Final = {
    "digits": Network("digits of `tqt-onnx demo`"),
    "resnet8": Network("models/resnet8_cifar10.h5", "images/cifar10_train.zip", 100, "images/cifar10_test.zip"),
    "cifar_small": Network("models/cifar_small_ckpt/frozen_model.pb", "images/cifar10_train.zip", 100, "images/cifar10_test.zip"),
    "vww": Network("models/vww_mobilenet_v1_0.25_96.h5", _PHOTOS, 50, _PHOTOS, "unit", None),
    "mobilenet25": Network("models/mobilenet_v1_0.25_128_frozen.pb", _PHOTOS, 50, _PHOTOS, "inception", 1),
    "mobilenet75": Network("models/mobilenet_v1_0.75_224.keras", _PHOTOS, 50, _PHOTOS, "inception"),
}

METHODS: Final[dict[str, dict[str, Any]]] = {
    "mse": {"method": "mse"},
    "max": {"method": "max"},
    "klj": {"method": "klj"},
    "percentile 99.9": {"method": "percentile", "percentile": 99.9},
    "percentile 99.99": {"method": "percentile", "percentile": 99.99},
}

VARIANTS: Final[dict[str, tuple[BitWidths, bool]]] = {
    "W8A8 layer16": (BitWidths(), False),
    "W8A8 layer32": (BitWidths(layer=32), False),
    "W4A8 layer16": (BitWidths(weight=4), False),
    "W4A8 layer32": (BitWidths(weight=4, layer=32), False),
    "A8 layer16": (BitWidths(), True),
}
"""Column -> widths, and whether the weights stay float."""

Score = dict[str, float | None]
COLLAPSED: Final = 0.5
"""Agreement of the best method below which a column says nothing about methods."""


def main() -> None:
    """Measures, prints and writes."""
    arguments = parse()
    found: dict[str, dict[str, dict[str, list[Score]]]] = {}
    for file in arguments.results:
        found |= json.loads(file.read_text())["networks"]
    for name, scores in found.items():
        show(name, scores)
    for name in arguments.networks:
        scores = {}
        for seed in range(arguments.seeds):
            for variant, method, score in measure(NETWORKS[name], seed, arguments):
                scores.setdefault(variant, {}).setdefault(method, []).append(score)
        found[name] = scores
        show(name, scores)
    summary(found)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"tqt_onnx": tqt_onnx.__version__, "networks": found}, indent=1))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    default = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of models and images (TQT_ONNX_DATA)")
    parser.add_argument("--limit", type=int, default=5000, help="evaluate on at most so many images")
    parser.add_argument("--seeds", type=int, default=1, help="calibration sets drawn one after the other")
    parser.add_argument("--results", type=Path, action="append", default=[], help="networks measured before: a file of --json")
    parser.add_argument("--json", type=Path, help="write everything here")
    arguments = parser.parse_args()
    unknown = set(arguments.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"networks are {', '.join(NETWORKS)}. Received: {', '.join(sorted(unknown))}")
    return arguments


def opened(network: Network, seed: int, arguments: argparse.Namespace) -> tuple[onnx_ir.Model, Dataset, Dataset]:
    """The optimized float model, calibration images and evaluation images."""
    if not network.calibration:
        digits = demo_digits(0)
        source = open_array(np.concatenate([digits.calibration, digits.train]))
        return (
            tqt_onnx.convert(train(digits, epochs=12, seed=0)).model,
            source.sample(network.count, seed),
            open_array(digits.test, labels=digits.test_labels),
        )
    model = tqt_onnx.convert(arguments.data / network.model).model
    shape = tuple(dim if isinstance(dim, int) else None for dim in list(model.graph.inputs[0].shape or ())[1:])
    first = tqt_onnx.open_dataset(arguments.data / network.calibration, input_shape=shape, preprocess=network.preprocess)
    if network.calibration == network.evaluation:
        calibration, evaluation = first.split(network.count, seed)
    else:
        calibration = first.sample(network.count, seed)
        evaluation = tqt_onnx.open_dataset(
            arguments.data / network.evaluation, input_shape=shape, preprocess=network.preprocess, limit=arguments.limit, seed=0
        )
    return model, calibration, evaluation.take(arguments.limit)


def measure(network: Network, seed: int, arguments: argparse.Namespace) -> Iterator[tuple[str, str, Score]]:
    """Scores of all variants and methods, and of the float network under the empty variant."""
    source, calibration, evaluation = opened(network, seed, arguments)
    images = calibration.array()
    reference = Logits(lowered(source, BitWidths(layer=32)))
    running = {(variant, method): Logits(quantized(source, images, variant, method)) for variant in VARIANTS for method in METHODS}
    labels = None if network.label_offset is None else evaluation.labels
    right = 0 if labels is None else labels + (network.label_offset or 0)
    counts = {key: Counts() for key in running}
    correct, start = 0, 0
    for inputs, _ in evaluation.batches(BATCH):
        exact = reference(inputs)
        target = None if labels is None else right[start : start + len(inputs)]  # type: ignore[index]
        start += len(inputs)
        correct += 0 if target is None else int((exact.argmax(1) == target).sum())
        for key, logits in running.items():
            counts[key].add(exact, logits(inputs), target)
    yield "", "float", {"top1": None if labels is None else correct / start, "agreement": 1.0, "sqnr": None, "images": start}
    for (variant, method), count in counts.items():
        yield variant, method, count.score(labelled=labels is not None)


def lowered(source: onnx_ir.Model, bits: BitWidths) -> onnx_ir.Model:
    """The float model as it is quantized."""
    model = source.clone()
    lower(model, bits.contract)
    return model


def quantized(source: onnx_ir.Model, images: Array, variant: str, method: str) -> onnx_ir.Model:
    """One Q/DQ model."""
    bits, float_weights = VARIANTS[variant]
    model = lowered(source, bits)
    graph = annotate(model, bits)
    if float_weights:
        graph = activations_only(graph)
    name = name_of(model.graph.inputs[0])
    floors: dict[str, float] = {}
    for _ in range(3):  # as `quantize` does (L11)
        decided = graph.decide(calibrate(model, graph, lambda: [{name: images}], floors=floors, **METHODS[method]))
        more = {} if float_weights else weight_floors(model, decided)
        if not more:
            break
        floors |= more
    return insert_qdq(model, decided)


def activations_only(graph: QuantizerGraph) -> QuantizerGraph:
    """The quantizers without those of weights, and of biases whose scale comes from weights."""
    kept = tuple(q for q in graph.quantizers if q.role != "weight" and q.derived_from is None)
    return replace(graph, quantizers=kept)


class Logits:
    """A model that ends in front of its Softmax; calling it gives the logits [N, classes]."""

    def __init__(self, model: onnx_ir.Model) -> None:
        output = model.graph.outputs[0]
        value: onnx_ir.Value | None = output
        while value is not None and (node := value.producer()) is not None and node.op_type != "DequantizeLinear":
            if node.op_type == "Softmax":
                output = node.inputs[0]  # type: ignore[assignment]
                break
            value = node.inputs[0]
        model.graph.outputs[:] = [output]
        self._input = name_of(model.graph.inputs[0])
        self._output = name_of(output)
        self._session = onnxruntime.InferenceSession(
            onnx_ir.serde.serialize_model(model).SerializeToString(),
            session_options(optimize=True),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[_QUANTIZES_FLOAT_WEIGHTS],
        )

    def __call__(self, inputs: Array) -> Array:
        """One batch."""
        (result,) = self._session.run([self._output], {self._input: inputs})
        return result.reshape(len(inputs), -1).astype(np.float64)


class Counts:
    """What one quantized network did, image after image."""

    def __init__(self) -> None:
        self.images = self.correct = self.agreed = 0
        self.signal = self.noise = 0.0

    def add(self, exact: Array, got: Array, labels: Array | None) -> None:
        """One batch of logits."""
        answers = got.argmax(1)
        self.images += len(got)
        self.agreed += int((answers == exact.argmax(1)).sum())
        self.correct += 0 if labels is None else int((answers == labels).sum())
        self.signal += float((exact**2).sum())
        self.noise += float(((exact - got) ** 2).sum())

    def score(self, *, labelled: bool) -> Score:
        """Shares and dB."""
        return {
            "top1": self.correct / self.images if labelled else None,
            "agreement": self.agreed / self.images,
            "sqnr": 10 * float(np.log10(self.signal / max(self.noise, 1e-300))),
        }


def mean(scores: list[Score], key: str) -> float | None:
    """Over the calibration sets."""
    values = [score[key] for score in scores]
    return None if any(value is None for value in values) else float(np.mean(values))  # type: ignore[arg-type]


def show(name: str, scores: Mapping[str, Mapping[str, list[Score]]]) -> None:
    """The table of one network, in Markdown."""
    network, (exact, *more) = NETWORKS[name], scores[""]["float"]
    labelled = exact["top1"] is not None
    head = f"float top-1 {exact['top1']:.4f}" if labelled else "no labels"
    print(f"\n**{Path(network.model).name}**: {network.count} calibration images", end="")
    print(f" (means of {1 + len(more)} draws)" if more else "", end="")
    print(f", {exact['images']:.0f} evaluated, {head}. {'Top-1 / a' if labelled else 'A'}greement / SQNR of the logits.\n")
    print("| method |", " | ".join(VARIANTS), "|")
    print("|---" * (len(VARIANTS) + 1) + "|")
    for method in METHODS:
        print(f"| {method} |", " | ".join(cell(scores[variant][method]) for variant in VARIANTS), "|", flush=True)


def cell(scores: list[Score]) -> str:
    """`.7500 / .9400 / 21.3`."""
    top1, agreement, sqnr = (mean(scores, key) for key in ("top1", "agreement", "sqnr"))
    parts = [] if top1 is None else [f"{top1:.4f}"]
    return " / ".join([*parts, f"{agreement:.4f}", f"{sqnr:.1f}"])


def summary(found: Mapping[str, Mapping[str, Mapping[str, list[Score]]]]) -> None:
    """How far each method is from the best of its column, on average and at worst, where the column did not collapse."""
    behind: dict[str, dict[str, list[float]]] = {key: {m: [] for m in METHODS} for key in ("agreement", "sqnr")}
    columns = []
    for name, scores in found.items():
        for variant in VARIANTS:
            if max(mean(scores[variant][m], "agreement") or 0.0 for m in METHODS) < COLLAPSED:
                continue
            columns.append(f"{name} {variant}")
            for key, gaps in behind.items():
                means = {m: mean(scores[variant][m], key) or 0.0 for m in METHODS}
                for method, value in means.items():
                    gaps[method].append(max(means.values()) - value)
    if not columns:
        return
    print(f"\nDistance from the best method of a column, over {len(columns)} columns ({', '.join(columns)}).\n")
    print("| method | agreement, points: mean | worst | SQNR, dB: mean | worst | best SQNR in |")
    print("|---|---|---|---|---|---|")
    for method in METHODS:
        points, noise = (np.array(behind[key][method]) for key in ("agreement", "sqnr"))
        first = int((noise == 0).sum())
        print(f"| {method} | {100 * points.mean():.2f} | {100 * points.max():.2f}", end="")
        print(f" | {noise.mean():.2f} | {noise.max():.2f} | {first} of {len(columns)} |")


if __name__ == "__main__":
    main()
