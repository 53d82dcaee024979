"""`dpu`: right answers and SQNR of what is written for a DPU, for each contract, with `--fix` and with biases of 8 bits.

SQNRs are those of `positions.json`: of the logits, against the model that was given, on 64 images.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import accuracy
import onnx_ir
from handoff_models import Table, scratch

import tqt_onnx
from tqt_onnx.datasets import Dataset
from tqt_onnx.ir import name_of
from tqt_onnx.report import progress_bar
from tqt_onnx.verbs.export import export_model
from tqt_onnx.verify import Session

TUNED: Final = {"mobilenet25", "mobilenet75"}
"""Networks that static mode alone collapses."""

FIX: Final[dict[str, Any]] = {"fix": True}
NARROW: Final[dict[str, Any]] = {"bias_bits": 8}
VARIANTS: Final = {
    "layer16": (tqt_onnx.BitWidths(), {"--fix": FIX, "--fix --bias-bits 8": FIX | NARROW}),
    "layer32": (tqt_onnx.BitWidths(layer=32), {"--fix": FIX, "--fix --bias-bits 8": FIX | NARROW}),
    "layer32-relu7": (
        tqt_onnx.BitWidths(layer=32, relu=7, average_pool=7, reciprocal=7),
        {"as it is": {}, "--bias-bits 8": NARROW},
    ),
}
"""Name -> widths of the quantized model, and how it is exported."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the subcommand."""
    parser.add_argument("networks", nargs="+", choices=(*accuracy.NETWORKS, "digits"))
    default = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of models and images (TQT_ONNX_DATA)")
    parser.add_argument("--demo", type=Path, default=Path("demo-output"), help="folder that `tqt-onnx demo` wrote, for digits")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--limit", type=int, default=1000, help="evaluate on at most so many images")


def measure(given: argparse.Namespace) -> Iterator[Table]:
    """One table for each network."""
    for name in given.networks:
        converted, calibration, evaluation, offset = opened(name, given)
        models, noise = {"float": converted}, {}
        with scratch() as folder, progress_bar() as progress:
            for variant in given.variants:
                bits, options = VARIANTS[variant]
                tune = name in TUNED
                quantized = tqt_onnx.quantize(converted, calibration, bits=bits, tune=tune, seed=0, progress=progress).model
                models[variant] = quantized
                for label, option in options.items():
                    row = f"{variant} -> {label}"
                    result = export_model(quantized, "dpu", folder / str(len(models)), options=option, data=evaluation, limit=64)
                    models[row] = tqt_onnx.load(result.folder / "model.onnx")
                    found = json.loads((result.folder / "positions.json").read_text())["sqnr_db"]
                    noise[row] = decibels(found) if found else differing(quantized, models[row], evaluation)
            found = tqt_onnx.evaluate(models, evaluation, label_offset=offset, limit=given.limit, progress=progress)
        rows = [(one.name, one.top1, noise.get(one.name, "")) for one in found.models]
        title = f"{name}: {len(calibration)} calibration images, right of {found.count}"
        part = "" if set(given.variants) == set(VARIANTS) else "_" + "_".join(given.variants)
        yield Table(name + part, title, ("model", "right answers", "SQNR of the logits"), rows)


def opened(name: str, given: argparse.Namespace) -> tuple[onnx_ir.Model, Dataset, Dataset, int]:
    """Float network, calibration and evaluation images, output index of class 0."""
    if name == "digits":
        model = tqt_onnx.load(given.demo / "digits.onnx")
        calibration, evaluation = (
            tqt_onnx.open_dataset(given.demo / file, input_shape=shape_of(model)) for file in ("calibration.npy", "test.npz")
        )
        return model, calibration, evaluation, 0
    network = accuracy.NETWORKS[name]
    model = tqt_onnx.convert(given.data / network.model).model
    calibration, evaluation = accuracy.images(network, shape_of(model), given)
    return model, calibration, evaluation, network.label_offset


def shape_of(model: onnx_ir.Model) -> tuple[int | None, ...]:
    """Of one example."""
    return tuple(dim if isinstance(dim, int) else None for dim in list(model.graph.inputs[0].shape or ())[1:])


def decibels(found: dict[str, float | None]) -> str:
    """The worst output; None stands for one of which no number differs."""
    finite = [value for value in found.values() if value is not None]
    return f"{min(finite):.1f} dB" if finite else "no logit differs"


def differing(model: onnx_ir.Model, written: onnx_ir.Model, images: Dataset) -> str:
    """What was written with nothing changed: probabilities that are not those of the model, on 64 images."""
    sessions, numbers, differ = [Session(one, optimize=True) for one in (model, written)], 0, 0
    for batch, _ in images.take(64).batches(16):
        wanted, received = (session.run({name_of(model.graph.inputs[0]): batch})[session.outputs[0]] for session in sessions)
        numbers += wanted.size
        differ += int((wanted != received).sum())
    return f"{differ} of {numbers:,} numbers differ"
