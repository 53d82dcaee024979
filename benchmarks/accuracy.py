"""Static accuracy of the real networks: float against int8 and int4 in both layer contracts, on the same images.

    TQT_ONNX_DATA=../shared/data python benchmarks/accuracy.py resnet8 mobilenet25 --method mse

Calibration and evaluation images never overlap. Differences are paired: each quantized network against the float one, image
by image, with a 95% interval. The ImageNet pictures are few and probably training images: they compare float with integer,
they do not measure an accuracy. Prints one table a network and writes `results/accuracy_*.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tqt_onnx
from tqt_onnx.datasets import AccuracyResult, Dataset
from tqt_onnx.report import make_console, progress_bar, table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Network:
    """One network and its images.

    Attributes:
        model: file below the data folder.
        calibration: images to draw calibration images from.
        count: how many, drawn with seed 0.
        evaluation: images to evaluate on; the same source means all others of it.
        preprocess: preset.
        label_offset: output index of class 0.
    """

    model: str
    calibration: str
    count: int
    evaluation: str
    preprocess: str
    label_offset: int = 0


NETWORKS: Final = {
    "resnet8": Network("models/resnet8_cifar10.h5", "images/cifar10_train.zip", 100, "images/cifar10_test.zip", "none"),
    "mobilenet25": Network(
        "models/mobilenet_v1_0.25_128_frozen.pb", "images/imagenet", 50, "images/imagenet", "signed_unit", label_offset=1
    ),
    "mobilenet75": Network("models/mobilenet_v1_0.75_224.keras", "images/imagenet", 50, "images/imagenet", "signed_unit"),
}

VARIANTS: Final[dict[str, dict[str, int]]] = {
    "int8 layer16": {},
    "int8 layer32": {"layer": 32},
    "int4 layer16": {"weight": 4},
    "int4 layer32": {"weight": 4, "layer": 32},
}
"""Row of the table -> widths that are not the default."""


def main() -> None:
    """Measures, prints and writes."""
    arguments = parse()
    for name in arguments.networks:
        began = time.perf_counter()
        result = measure(NETWORKS[name], arguments)
        show(name, result, arguments)
        write(name, result, arguments, time.perf_counter() - began)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    default = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of models and images (TQT_ONNX_DATA)")
    parser.add_argument("--method", default="mse", help="calibration method of activations")
    parser.add_argument("--weight-method", default="mse", help="the same of weights")
    parser.add_argument("--parallel-calibration", action="store_true")
    parser.add_argument("--unsigned-input", action="store_true", help="uint8 inputs, for networks that are fed 0..255")
    parser.add_argument("--limit", type=int, help="evaluate on at most so many images")
    arguments = parser.parse_args()
    unknown = set(arguments.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"networks are {', '.join(NETWORKS)}. Received: {', '.join(sorted(unknown))}")
    if not arguments.data.is_dir():
        parser.error(f"the folder of models and images is expected in --data or TQT_ONNX_DATA. Received: {arguments.data}")
    return arguments


def measure(network: Network, arguments: argparse.Namespace) -> AccuracyResult:
    """Accuracies of the float network and of all its variants."""
    converted = tqt_onnx.convert(arguments.data / network.model).model
    shape = tuple(dim if isinstance(dim, int) else None for dim in list(converted.graph.inputs[0].shape or ())[1:])
    calibration, evaluation = images(network, shape, arguments)
    models = {"float": converted}
    with progress_bar() as progress:
        for name, widths in VARIANTS.items():
            models[name] = tqt_onnx.quantize(
                converted,
                calibration,
                bits=tqt_onnx.BitWidths(unsigned_input=arguments.unsigned_input, **widths),  # type: ignore[arg-type]
                method=arguments.method,
                weight_method=arguments.weight_method,
                parallel=arguments.parallel_calibration,
                progress=progress,
            ).model
        return tqt_onnx.evaluate(models, evaluation, label_offset=network.label_offset, limit=arguments.limit, progress=progress)


def images(network: Network, shape: tuple[int | None, ...], arguments: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Calibration and evaluation images, never the same ones."""
    source = tqt_onnx.open_dataset(arguments.data / network.calibration, input_shape=shape, preprocess=network.preprocess)
    if network.evaluation == network.calibration:
        return source.split(network.count, seed=0)
    evaluation = tqt_onnx.open_dataset(arguments.data / network.evaluation, input_shape=shape, preprocess=network.preprocess)
    return source.sample(network.count, seed=0), evaluation


def rows(result: AccuracyResult) -> list[dict[str, Any]]:
    """One for each model: shares, and the paired difference from float in points."""
    differences = {item.name: item for item in result.differences}
    found = []
    for model in result.models:
        row: dict[str, Any] = {"model": model.name, "top1": model.top1_share, "top5": model.top5_share, "images": model.count}
        if model.name in differences:
            item = differences[model.name]
            assert item.difference is not None and item.interval is not None
            row |= {
                "points": 100 * item.difference,
                "interval": [100 * bound for bound in item.interval],
                "agreement": item.agreement,
            }
        found.append(row)
    return found


def show(name: str, result: AccuracyResult, arguments: argparse.Namespace) -> None:
    """The table of one network."""
    cells = [
        (
            row["model"],
            f"{row['top1']:.4f}",
            f"{row['top5']:.4f}",
            f"{row['points']:+.2f}" if "points" in row else None,
            "{:+.2f} .. {:+.2f}".format(*row["interval"]) if "points" in row else None,
        )
        for row in rows(result)
    ]
    network = NETWORKS[name]
    title = f"{Path(network.model).name}: {network.count} calibration images, {result.count} evaluated, {arguments.method}"
    make_console().print(table(title, ("model", "top-1", "top-5", "points from float", "95%"), cells))


def write(name: str, result: AccuracyResult, arguments: argparse.Namespace, seconds: float) -> None:
    """One JSON file in `results/`."""
    RESULTS.mkdir(exist_ok=True)
    options = {"method": arguments.method, "weight_method": arguments.weight_method}
    options |= {"parallel": arguments.parallel_calibration, "unsigned_input": arguments.unsigned_input}
    label = f"accuracy_{name}_{arguments.method}{'_unsigned' if arguments.unsigned_input else ''}.json"
    content = {
        "tqt_onnx": tqt_onnx.__version__,
        "network": NETWORKS[name].model,
        **options,
        "seconds": seconds,
        "rows": rows(result),
    }
    (RESULTS / label).write_text(json.dumps(content, indent=1))
    print(f"written to {RESULTS / label}")


if __name__ == "__main__":
    main()
