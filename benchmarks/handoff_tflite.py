"""`tflite`: the written file in TFLite's interpreter, with each set of its kernels, against the oracle: logits and answers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from handoff_models import Array, Table, examples, model_arguments, oracle_outputs, scratch, short, without_tail

from tqt_onnx.ir import quantizers_of
from tqt_onnx.verbs.export import export_model
from tqt_onnx.verify import Oracle

KERNELS: Final = {
    "XNNPACK": "AUTO",
    "optimized": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
"""Kernels -> the name of their resolver."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the subcommand."""
    model_arguments(parser, limit=100)


def measure(given: argparse.Namespace) -> Iterator[Table]:
    """A row for each model and set of kernels; models have one output."""
    rows, notes = [], []
    for path in given.models:
        model = without_tail(path)
        (output,) = (value.name or "" for value in model.graph.outputs)
        graph, oracle = quantizers_of(model), Oracle(model)
        assert graph is not None
        batches = list(examples(model, given))
        wanted = np.concatenate([flat(oracle_outputs(model, oracle, feeds)[output]) for feeds in batches])
        unit = np.min(np.abs(np.diff(np.unique(wanted))))  # the smallest step that occurs: the scale, or a multiple of it
        with scratch() as folder:
            result = export_model(model, "tflite", folder / "out", options={"narrow_weights": True})
            (file,) = result.folder.glob("*.tflite")
            for kernels, resolver in KERNELS.items():
                found = np.concatenate([flat(run(file, resolver, feeds)[output]) for feeds in batches])
                largest = np.abs(found - wanted).max() / unit
                same = np.mean(found.argmax(1) == wanted.argmax(1))
                rows.append((short(path), len(wanted), kernels, f"{np.mean(found == wanted):.1%}", f"{largest:g}", f"{same:.1%}"))
        notes += [f"{short(path)}: {note}" for note in result.notes if note.startswith("Weights of -128")]
    head = ("model", "images", "kernels", "equal logits", "largest difference", "same top-1")
    yield Table(short(given.models[0]), "TFLite against the oracle", head, rows, notes)


def flat(array: Array) -> Array:
    """One row for each example."""
    return array.reshape(len(array), -1)


def run(file: Path, resolver: str, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """The outputs, example by example."""
    import tensorflow as tf

    kinds = tf.lite.experimental.OpResolverType
    interpreter = tf.lite.Interpreter(str(file), experimental_op_resolver_type=getattr(kinds, resolver))
    runner = interpreter.get_signature_runner("serving_default")
    count = len(next(iter(feeds.values())))
    found = [runner(**{name: array[index : index + 1] for name, array in feeds.items()}) for index in range(count)]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
