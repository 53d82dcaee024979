"""`quantize --tune`: networks that static mode loses, repaired from unlabelled images; int8 and int4.

    TQT_ONNX_DATA=../shared/data python examples/tune_mobilenets.py

Of 600 images, 50 or 400 are calibrated and tuned on, without their labels; the others are evaluated. resnet8 is tuned on 50 or 100
training images of CIFAR-10 and evaluated on the 5,000 test images. The seeds draw the images and are not those that were used
while tuning was developed; the 600 images are the same. Every row runs in a process of its own, for its peak memory. Prints the
table of docs/results.md and writes `results/tune_mobilenets.json`; `--only ROW` and `--seeds` run a part of it and keep the rest
of that file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from paired import difference, packed, right, unpacked

import tqt_onnx
from tqt_onnx.datasets import Dataset
from tqt_onnx.report import make_console, table
from tqt_onnx.verbs.agreement import agreement

RESULTS: Final = Path(__file__).parent / "results" / "tune_mobilenets.json"


@dataclass(frozen=True)
class Network:
    """One network and its images.

    Attributes:
        model: file below the data folder.
        images: what calibration images are drawn from.
        evaluation: images to evaluate on; the same source means all others of it.
        preprocess: preset.
        label_offset: output index of class 0.
        counts: how many images are tuned on.
    """

    model: str
    images: str
    evaluation: str
    preprocess: str
    label_offset: int
    counts: tuple[int, ...]


NETWORKS: Final = {
    "mobilenet25": Network(
        "models/mobilenet_v1_0.25_128_frozen.pb", "images/imagenet", "images/imagenet", "signed_unit", 1, (50, 400)
    ),
    "mobilenet75": Network("models/mobilenet_v1_0.75_224.keras", "images/imagenet", "images/imagenet", "signed_unit", 0, (50, 400)),
    "resnet8": Network("models/resnet8_cifar10.h5", "images/cifar10_train.zip", "images/cifar10_test.zip", "none", 0, (50, 100)),
}

ROWS: Final = {
    f"{name} {count} int{bits}": (name, count, bits)
    for name, network in NETWORKS.items()
    for count in network.counts
    for bits in (8, 4)
}
"""Row of the table -> network, images, bits of the weights."""


def main() -> None:
    """Runs what is asked for, prints everything."""
    arguments = parse()
    if arguments.child is not None:
        model, name, seed, minutes = arguments.child
        json.dump(run(Path(model), name, int(seed), float(minutes), arguments.data), sys.stdout)
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"minutes": arguments.minutes, "rows": {}}
    if found["minutes"] != arguments.minutes:
        raise SystemExit(f"{RESULTS} holds rows of --minutes {found['minutes']}; remove it to begin anew")
    rows = found["rows"]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only or ROWS:
            network = ROWS[name][0]
            model = Path(folder) / f"{network}.onnx"
            if not model.is_file():  # here: the children measure tuning, not the conversion
                tqt_onnx.save(tqt_onnx.convert(arguments.data / NETWORKS[network].model).model, model)
            for seed in arguments.seeds:
                command = [sys.executable, __file__, "--data", str(arguments.data), "--child"]
                child = [str(model), name, str(seed), str(arguments.minutes)]
                output = subprocess.run([*command, *child], check=True, stdout=subprocess.PIPE, text=True).stdout
                rows.setdefault(name, {})[str(seed)] = json.loads(output.splitlines()[-1])
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    show(rows)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of models and images (TQT_ONNX_DATA)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=f"rows to run, of: {', '.join(ROWS)}")
    parser.add_argument("--minutes", type=float, default=5.0, help="time budget of tuning")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"the folder of models and images is expected in --data or TQT_ONNX_DATA. Received: {arguments.data}")
    return arguments


def run(model: Path, row: str, seed: int, minutes: float, data: Path) -> dict[str, Any]:
    """One row of one seed: static and tuned network on images that neither has seen."""
    name, count, weight = ROWS[row]
    network = NETWORKS[name]
    source = tqt_onnx.load(model)
    shape = tuple(dim if isinstance(dim, int) else None for dim in list(source.graph.inputs[0].shape or ())[1:])
    calibration, evaluation = images(network, shape, count, seed, data)
    bits = tqt_onnx.BitWidths(weight=weight)
    static = tqt_onnx.quantize(source, calibration, bits=bits)
    began, used = time.perf_counter(), cpu_seconds()
    tuned = tqt_onnx.quantize(source, calibration, bits=bits, tune=True, tune_minutes=minutes, seed=seed)
    wall, used = time.perf_counter() - began, cpu_seconds() - used
    peak = peak_mb()
    models = {"float": source, "static": static.model, "tuned": tuned.model}
    rights = {one: right(model, evaluation, network.label_offset) for one, model in models.items()}
    evaluated = np.zeros(evaluation.rows.max() + 1, np.bool_)
    evaluated[evaluation.rows] = True
    won, lost = evaluated.copy(), evaluated.copy()
    won[evaluation.rows], lost[evaluation.rows] = rights["tuned"] & ~rights["float"], rights["float"] & ~rights["tuned"]
    feed = source.graph.inputs[0].name
    near = agreement(source, tuned.model, ({feed: inputs} for inputs, _ in evaluation.batches(32)), limit=None)
    assert tuned.tuning is not None
    return {
        **{one: float(flags.mean()) for one, flags in rights.items()},
        "images": {"count": len(evaluated), "evaluated": packed(evaluated), "won": packed(won), "lost": packed(lost)},
        "agreement": near.top1,
        "divergence": near.divergence,
        "sqnr": near.sqnr,
        "kept": tuned.tuning.kept,
        "in_time": tuned.tuning.in_time,
        "wall": wall,
        "cpu": used,
        "peak_mb": peak,
    }


def images(network: Network, shape: tuple[int | None, ...], count: int, seed: int, data: Path) -> tuple[Dataset, Dataset]:
    """Images to tune on and images to evaluate on, never the same ones."""
    source = tqt_onnx.open_dataset(data / network.images, input_shape=shape, preprocess=network.preprocess)
    if network.evaluation == network.images:
        return source.split(count, seed)
    return source.sample(count, seed), tqt_onnx.open_dataset(
        data / network.evaluation, input_shape=shape, preprocess=network.preprocess
    )


def cpu_seconds() -> float:
    """Of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    """Largest resident memory of this process so far; `ru_maxrss` would be that of the parent where that is larger."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def outcomes(seeds: list[dict[str, Any]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of every image, over the seeds: how often only the tuned network got it right, minus only float; how often it was seen."""
    count = max(one["count"] for one in seeds)
    gains, seen = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for one in seeds:
        won, lost, evaluated = (unpacked(one[key], one["count"]).astype(np.int64) for key in ("won", "lost", "evaluated"))
        gains[: one["count"]] += won - lost
        seen[: one["count"]] += evaluated
    return gains, seen


def show(found: dict[str, Any]) -> None:
    """Means over the seeds; differences from float image by image, over all seeds."""
    rows = []
    for name, (network, count, bits) in ROWS.items():
        seeds = list(found.get(name, {}).values())
        if not seeds:
            continue
        average = {
            key: mean(one[key] for one in seeds)
            for key in ("float", "static", "tuned", "agreement", "sqnr", "divergence", "wall", "cpu")
        }
        middle, half = difference(*outcomes([one["images"] for one in seeds]))
        rows.append(
            (
                network,
                count,
                bits,
                len(seeds),
                *(f"{average[key]:.3f}" for key in ("float", "static", "tuned")),
                f"{middle:+.2f}",
                f"{middle - half:+.2f} .. {middle + half:+.2f}",
                f"{average['agreement']:.1%}",
                f"{average['sqnr']:.1f}",
                f"{average['divergence']:.3f}",
                f"{average['wall']:.0f}",
                f"{average['cpu']:.0f}",
                f"{max(one['peak_mb'] for one in seeds):.0f}",
            )
        )
    columns = ("network", "images", "bits", "seeds", "float", "static", "tuned", "points", "95%", "as float")
    make_console().print(table("quantize --tune, layer16", (*columns, "SQNR, dB", "KL", "wall s", "CPU s", "peak MB"), rows))


if __name__ == "__main__":
    main()
