"""resnet8 on CIFAR-10: float, fine-tuned float, static and retrained int8 and int4, with the paper's ablation.

    TQT_ONNX_DATA=../shared/data python examples/retrain_resnet8.py --seeds 0 1 2

Every training takes the same number of steps on the 20,000 training images and its last step is what counts: nothing is selected.
The 5,000 test images decide nothing either. Thresholds start from the same 100 training images. Prints the table of
docs/results.md and writes `results/retrain_resnet8.json`; `--only NAME` runs a part of it and keeps the rest of that file.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final, Literal

import tqt_onnx
from tqt_onnx.datasets import Dataset, paired_interval
from tqt_onnx.report import make_console, progress_bar, table

RESULTS: Final = Path(__file__).parent / "results" / "retrain_resnet8.json"


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        mode: what is trained; None for static mode.
        weight: bits of the weights.
        weight_method: where the thresholds of weights start.
    """

    mode: Literal["float", "weights", "thresholds", "both"] | None
    weight: int = 8
    weight_method: str = "mse"


VARIANTS: Final = {
    "float, fine-tuned": Variant("float"),
    "int8 static": Variant(None),
    "int8 weights": Variant("weights"),
    "int8 weights+thresholds": Variant("both", weight_method="3sd"),
    "int4 static": Variant(None, weight=4),
    "int4 weights": Variant("weights", weight=4),
    "int4 weights+thresholds": Variant("both", weight=4, weight_method="3sd"),
}


def main() -> None:
    """Trains what is missing, prints everything."""
    arguments = parse()
    source = tqt_onnx.convert(arguments.data / "models/resnet8_cifar10.h5", keep_batch_norm=True).model
    train, test = (
        tqt_onnx.open_dataset(arguments.data / f"images/cifar10_{part}.zip", input_shape=(32, 32, 3)) for part in ("train", "test")
    )
    train, test = in_memory(train), in_memory(test)
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for seed in arguments.seeds:
        models: dict[str, Any] = {"float": source}
        seconds = {}
        for name in arguments.only or VARIANTS:
            began = time.perf_counter()
            models[name] = run(VARIANTS[name], source, train, seed, arguments)
            seconds[name] = time.perf_counter() - began
        result = tqt_onnx.evaluate(models, test)
        right = {model.name: model.top1 for model in result.models}
        for difference in result.differences:
            found.setdefault(difference.name, {})[str(seed)] = {
                "top1": right[difference.name] / len(test),
                "float": right["float"] / len(test),
                "only_float": difference.only_reference,
                "only_this": difference.only_name,
                "agree": difference.agree,
                "images": len(test),
                "steps": arguments.steps,
                "seconds": seconds[difference.name],
            }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of models and images (TQT_ONNX_DATA)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), help="rows to run")
    parser.add_argument("--steps", type=int, default=1875, help="of every training: 3 epochs at the default batch size")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--weight-lr", type=float, default=1e-4, help="down to zero by a cosine")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"the folder of models and images is expected in --data or TQT_ONNX_DATA. Received: {arguments.data}")
    return arguments


def in_memory(dataset: Dataset) -> Dataset:
    """The images decoded once for all trainings, as the integers they are."""
    from tqt_onnx.datasets import open_array

    return open_array(dataset.array().astype("uint8"), labels=dataset.labels)


def run(variant: Variant, source: Any, train: Dataset, seed: int, arguments: argparse.Namespace) -> Any:
    """The model of one row."""
    bits = tqt_onnx.BitWidths(weight=variant.weight)
    calibration = train.sample(100, seed=0)
    with progress_bar() as progress:
        if variant.mode is None:
            return tqt_onnx.quantize(source, calibration, bits=bits, progress=progress).model
        schedule = tqt_onnx.Schedule(
            batch=arguments.batch_size, steps=arguments.steps, weight_lr=arguments.weight_lr, weight_schedule="cosine"
        )
        return tqt_onnx.retrain(
            source,
            train,
            calibration=calibration,
            select=None,
            bits=bits,
            weight_method=variant.weight_method,
            mode=variant.mode,
            schedule=schedule,
            augment="flip,pad=4",
            seed=seed,
            progress=progress,
        ).model


def show(found: dict[str, Any]) -> None:
    """One row for each variant: mean over seeds, and the difference from the float network, image by image, over all seeds."""
    rows = []
    for name in VARIANTS:
        seeds = list(found.get(name, {}).values())
        if not seeds:
            continue
        shares = [one["top1"] for one in seeds]
        only_this, only_float, images = (sum(one[key] for one in seeds) for key in ("only_this", "only_float", "images"))
        low, high = paired_interval(only_this, only_float, images)
        rows.append(
            (
                name,
                len(seeds),
                f"{mean(shares):.4f}",
                f"{stdev(shares):.4f}" if len(shares) > 1 else None,
                f"{100 * (only_this - only_float) / images:+.2f}",
                f"{100 * low:+.2f} .. {100 * high:+.2f}",
                f"{mean(one['agree'] / one['images'] for one in seeds):.1%}",
                f"{mean(one['seconds'] for one in seeds):.0f}",
            )
        )
    columns = ("network", "seeds", "top-1", "sd", "points from float", "95%", "as float", "seconds")
    make_console().print(table("resnet8, 5,000 test images of CIFAR-10", columns, rows))


if __name__ == "__main__":
    main()
