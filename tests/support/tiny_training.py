"""A tiny network with quantizers, data made from its step, and a training of it; run as a program it is one process of a training.

    python tiny_training.py '{"strategy": "none", "folder": "...", "pause": [12, "go"], ...}'

writes `step N` after every step, and a JSON object at the end: steps, resumed_from, interrupted, log2_t, and a hash and the norms
of the weights. A typed error is `error: ...` and exit status 2. With `pause` it waits behind that step until the file is there.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.ir import Quantizer, QuantizerGraph, TqtOnnxError

CLASSES = 4
SHAPE = (6, 6, 3)


def network(seed: int = 0) -> tuple[onnx_ir.Model, QuantizerGraph]:
    """Conv, relu, Gemm, Softmax, `layer16`, and decided quantizers."""
    rng = np.random.default_rng(seed)
    arrays = {
        "conv/w": rng.normal(0, 0.3, (5, 3, 3, 3)),
        "conv/b": rng.normal(0, 0.3, (5, 1, 1)),
        "dense/w": rng.normal(0, 0.3, (5 * 4 * 4, CLASSES)),
        "dense/b": rng.normal(0, 0.3, (CLASSES,)),
    }
    nodes = [
        helper.make_node("Transpose", ["x__input"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "conv/w"], ["conv__acc"], kernel_shape=[3, 3]),
        helper.make_node("Add", ["conv__acc", "conv/b"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Flatten", ["relu"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense/w"], ["dense__acc"]),
        helper.make_node("Add", ["dense__acc", "dense/b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    entry = helper.make_node("Identity", ["x"], ["x__input"])
    entry.metadata_props.add(key="tqt_onnx.role", value="input")
    graph = helper.make_graph(
        [entry, *nodes],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def on(value: str, bits: int, role: Any, exponent: int, group: str | None = None, signed: bool = True) -> Quantizer:
        return Quantizer(value, value, bits, signed, role, group or value, exponent=exponent)

    quantizers = (
        on("x__input", 8, "input", -5),
        on("conv/w", 8, "weight", -7),
        on("conv__acc", 16, "accumulator", -9),
        on("conv/b", 16, "bias", -9, "conv__acc"),
        on("relu", 8, "activation", -5, signed=False),
        on("dense/w", 8, "weight", -7),
        on("dense__acc", 16, "accumulator", -9),
        on("dense/b", 16, "bias", -9, "dense__acc"),
        on("logits", 8, "activation", -4),
    )
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return onnx_ir.serde.deserialize_model(inferred), QuantizerGraph("layer16", quantizers)


@dataclass
class Batches:
    """Normal images, labelled by a fixed linear function of them: each batch is a function of its step."""

    batch_size: int = 8
    steps_per_epoch: int = 10
    labelled: bool = True
    seed: int = 0

    def batch(self, step: int, part: int = 0, parts: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        images = (np.random.default_rng((self.seed, step)).normal(size=(self.batch_size, *SHAPE)) * 2).astype(np.float32)
        weights = np.random.default_rng(99).normal(size=(int(np.prod(SHAPE)), CLASSES))
        labels = (images.reshape(len(images), -1) @ weights).argmax(axis=1)
        rows = slice(part * self.batch_size // parts, (part + 1) * self.batch_size // parts)
        return {"x": images[rows]}, labels[rows] if self.labelled else None


def weights_digest(model: Any) -> str:
    """A hash of every variable's bits."""
    return hashlib.sha256(b"".join(np.asarray(variable.value.numpy()).tobytes() for variable in model.variables)).hexdigest()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(options: Mapping[str, Any]) -> int:
    import tensorflow as tf

    from tqt_onnx.backend_tf import regenerate
    from tqt_onnx.backend_tf.training import Schedule, make_strategy, train

    if "devices" in options:
        logical = [tf.config.LogicalDeviceConfiguration()] * options["devices"]
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)

    pause_at, go = options.get("pause", (None, ""))

    class Printer:
        def on_step(self, step: int, total: int, scalars: object) -> None:
            say(f"step {step}")
            while step == pause_at and not Path(go).exists():
                time.sleep(0.01)

        def on_validation(self, row: object) -> None:
            del row

        def on_freeze(self, step: int, group: str, log2_t: float) -> None:
            del step, group, log2_t

    try:
        strategy = make_strategy(options.get("strategy", "none"), timeout=options.get("timeout", 600))
        with strategy.scope():
            model = regenerate(*network())
        selection = Batches(seed=7)
        result = train(
            model,
            Batches(),
            schedule=Schedule(batch=8, **options.get("schedule", {})),
            mode=options.get("mode", "both"),
            folder=Path(options["folder"]) if "folder" in options else None,
            checkpoint_every=options.get("checkpoint_every"),
            select=(lambda: [selection.batch(0)]) if options.get("select") else None,
            strategy=strategy,
            listener=Printer(),
        )
    except TqtOnnxError as error:
        say(f"error: {error}")
        return 2
    found = {"steps": result.steps, "resumed_from": result.resumed_from, "interrupted": result.interrupted}
    norms = {name: float(np.linalg.norm(array)) for name, array in model.arrays().items()}
    say(json.dumps({**found, "log2_t": model.log2_thresholds(), "weights": weights_digest(model), "norms": norms}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
