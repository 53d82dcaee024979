"""`agree`: a written file as its reader runs it against the oracle: logits compared, and how many differ.

Targets `qdq` and `integer` run in onnxruntime with all optimizations, `saved-model` in TensorFlow.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir
from handoff_models import Array, Table, contract, examples, model_arguments, oracle_outputs, scratch, short, without_tail

import tqt_onnx
from tqt_onnx.verbs.export import export_model
from tqt_onnx.verify import Oracle, Session, fused_operators

Run = Callable[[Mapping[str, Array]], Mapping[str, Any]]

FLOAT_KERNELS: Final = {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the subcommand."""
    parser.add_argument("target", choices=("qdq", "integer", "saved-model"))
    model_arguments(parser, limit=20)


def measure(given: argparse.Namespace) -> Iterator[Table]:
    """One row for each model."""
    rows, notes = [], []
    for path in given.models:
        model = without_tail(path)
        with scratch() as folder:
            result = export_model(model, given.target, folder / "out")
            run = tensorflow_run(result.folder) if given.target == "saved-model" else onnxruntime_run(result.folder)
            images, numbers, differ = compared(model, run, examples(model, given))
            float_layers = left_in_float(model, result.folder) if given.target == "qdq" else ()
        rows.append((short(path), contract(model), *float_layers, images, numbers, differ))
        notes += [f"{short(path)}: {note}" for note in result.notes if "run in integers" in note]
    columns = ("layers in float: model", "export") if given.target == "qdq" else ()
    head = ("model", "contract", *columns, "examples", "numbers compared", "differ")
    yield Table(f"{given.target}_{short(given.models[0])}", f"target {given.target} against the oracle", head, rows, notes)


def compared(model: onnx_ir.Model, run: Run, batches: Iterable[Mapping[str, Array]]) -> tuple[int, int, int]:
    """Examples, numbers, and how many of them are not the oracle's."""
    oracle, images, numbers, differ = Oracle(model), 0, 0, 0
    for feeds in batches:
        received = run(feeds)
        for name, wanted in oracle_outputs(model, oracle, feeds).items():
            numbers += wanted.size
            differ += int(np.count_nonzero(np.asarray(received[name]) != wanted))
        images += len(next(iter(feeds.values())))
    return images, numbers, differ


def onnxruntime_run(folder: Path) -> Run:
    """The file as users run it."""
    (file,) = folder.glob("*.onnx")
    return Session(tqt_onnx.load(file), optimize=True).run


def tensorflow_run(folder: Path) -> Run:
    """The signature."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))  # its functions live as long as it does

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Any]:
        found = loaded.signatures["serving_default"](**{name: tf.constant(array) for name, array in feeds.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return run


def left_in_float(model: onnx_ir.Model, folder: Path) -> tuple[int, int]:
    """Compute layers that onnxruntime keeps in float kernels: of the model as it is, and of the written file."""
    (file,) = folder.glob("*.onnx")
    counts = [fused_operators(one) for one in (model, tqt_onnx.load(file))]
    before, after = (sum(count for name, count in one.items() if name in FLOAT_KERNELS) for one in counts)
    return before, after
