"""resnet8 on CIFAR-10: float, fine-tuned float, static and retrained int8 and int4, with the paper's ablation.

    TQT_ONNX_DATA=../shared/data python examples/retrain_resnet8.py --seeds 0 1 2

Every training takes the same number of steps on the 20,000 training images and its last step is what counts: nothing is selected.
The 5,000 test images decide nothing either; all rows have one learning rate. Thresholds start from the same 100
training images. Prints the tables of docs/results.md and writes `results/retrain_resnet8.json`, which holds which test images
each network gets right; rows that are there already, with the same settings, are not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from paired import difference, packed, right, unpacked

import tqt_onnx
from tqt_onnx.datasets import Dataset, open_array
from tqt_onnx.report import make_console, progress_bar, table

RESULTS: Final = Path(__file__).parent / "results" / "retrain_resnet8.json"
FLOAT, TUNED = "float", "float, fine-tuned"


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        mode: what is trained; None for static mode, which knows no seed.
        weight: bits of the weights.
        weight_method: where the thresholds of weights start, and stay where only weights are trained; `max` is the paper's then.
    """

    mode: Literal["float", "weights", "both"] | None
    weight: int = 8
    weight_method: str = "mse"


VARIANTS: Final = {
    TUNED: Variant("float"),
    "int8 static": Variant(None),
    "int8 weights": Variant("weights"),
    "int8 weights from max": Variant("weights", weight_method="max"),
    "int8 weights+thresholds": Variant("both", weight_method="3sd"),
    "int8 weights+thresholds from mse": Variant("both"),
    "int4 static": Variant(None, weight=4),
    "int4 weights": Variant("weights", weight=4),
    "int4 weights from max": Variant("weights", weight=4, weight_method="max"),
    "int4 weights+thresholds": Variant("both", weight=4, weight_method="3sd"),
    "int4 weights+thresholds from mse": Variant("both", weight=4),
}

COMPARED: Final = (
    *((name, FLOAT) for name in VARIANTS),
    *((name, TUNED) for name in VARIANTS if name != TUNED),
    *((f"int{bits} weights+thresholds{start}", f"int{bits} weights") for bits in (8, 4) for start in ("", " from mse")),
    *((f"int{bits} weights+thresholds", f"int{bits} weights from max") for bits in (8, 4)),  # the comparison of the paper
)
"""Which network is compared with which, on the same images."""


def main() -> None:
    """Trains what is missing, prints everything."""
    arguments = parse()
    settings = {"steps": arguments.steps, "batch_size": arguments.batch_size, "weight_lr": arguments.weight_lr}
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"settings": settings, "right": {}}
    if found["settings"] != settings:
        raise SystemExit(f"{RESULTS} holds rows of {found['settings']}; remove it to begin anew")
    source = tqt_onnx.convert(arguments.data / "models/resnet8_cifar10.h5", keep_batch_norm=True).model
    train, test = (in_memory(arguments.data / f"images/cifar10_{part}.zip") for part in ("train", "test"))
    found["right"].setdefault(FLOAT, {})["0"] = packed(right(source, test))
    for seed in arguments.seeds:
        for name in arguments.only or VARIANTS:
            known = found["right"].setdefault(name, {})
            if str(seed) in known or (VARIANTS[name].mode is None and known):
                continue
            known[str(seed)] = packed(right(run(VARIANTS[name], source, train, seed, arguments), test))
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    show(found, len(test))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of models and images (TQT_ONNX_DATA)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="none: only print what is there")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), help="rows to run")
    parser.add_argument("--steps", type=int, default=1875, help="of every training: 3 epochs at the default batch size")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--weight-lr", type=float, default=1e-4, help="down to zero by a cosine")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"the folder of models and images is expected in --data or TQT_ONNX_DATA. Received: {arguments.data}")
    return arguments


def in_memory(path: Path) -> Dataset:
    """The images, decoded once for all trainings, as the integers they are."""
    dataset = tqt_onnx.open_dataset(path, input_shape=(32, 32, 3))
    return open_array(dataset.array().astype("uint8"), labels=dataset.labels)


def run(variant: Variant, source: Any, train: Dataset, seed: int, arguments: argparse.Namespace) -> Any:
    """The model of one row."""
    bits = tqt_onnx.BitWidths() if variant.mode == "float" else tqt_onnx.BitWidths(weight=variant.weight)
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


def show(found: dict[str, Any], images: int) -> None:
    """Accuracies, then differences on the same images: seeds are averaged image by image before the interval is formed."""
    rights = {
        name: np.array([unpacked(text, images) for text in seeds.values()]) for name, seeds in found["right"].items() if seeds
    }
    rows = []
    for name, flags in rights.items():
        shares = flags.mean(axis=1)
        spread = f"{shares.min():.4f} .. {shares.max():.4f}" if len(shares) > 1 else None
        rows.append((name, len(shares), f"{shares.mean():.4f}", spread))
    columns = ("network", "seeds", "top-1", "least and most")
    make_console().print(table(f"resnet8, {images:,} test images of CIFAR-10", columns, rows))
    rows = []
    for name, reference in COMPARED:
        if name in rights and reference in rights:
            seeds = max(len(rights[name]), len(rights[reference]))  # static networks and the float one know one only
            counts = (seeds * rights[one].mean(axis=0) for one in (name, reference))
            won = np.rint(next(counts) - next(counts)).astype(np.int64)
            middle, half = difference(won, np.full(images, seeds))
            rows.append((f"{name} - {reference}", f"{middle:+.2f}", f"{middle - half:+.2f} .. {middle + half:+.2f}"))
    columns = ("networks", "top-1 points", "95%")
    make_console().print(table(f"Differences on the same {images:,} images, seeds averaged", columns, rows))


if __name__ == "__main__":
    main()
