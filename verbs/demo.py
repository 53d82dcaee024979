"""`demo`: the whole road on real data that ships with a dependency: train, convert, quantize, retrain, check, evaluate."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets import AccuracyResult, DigitSplits, demo_digits
from ..ir import UsageError, atomic_path, check_writable, save
from ..passes import BitWidths
from .check import check
from .convert import convert
from .evaluate import evaluate
from .keras_models import save_keras
from .quantize import quantize
from .retrain import make_schedule, retrain
from .sources import Progress

if TYPE_CHECKING:
    from ..verify import CheckResult

FILES = (
    "digits.keras",
    "digits.onnx",
    "digits.q.onnx",
    "digits.int4.q.onnx",
    "digits.int4.retrained.q.onnx",
    "calibration.npy",
    "test.npz",
)

INT4, RETRAINED = "digits.int4.q.onnx", "digits.int4.retrained.q.onnx"
"""Weights of 4 bits (first and last layer 8): static, and retrained."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo produced.

    Attributes:
        folder: where the files are.
        files: name -> size in bytes.
        difference: of the converted model from TensorFlow, relative to the output's range.
        check: bit-exactness per engine.
        retrained: bit-exactness of the retrained model.
        accuracy: of the four models on held-out digits, by file name.
        weight_bits: width of the quantized weights.
    """

    folder: Path
    files: dict[str, int]
    difference: float
    check: CheckResult
    retrained: CheckResult
    accuracy: AccuracyResult
    weight_bits: int


def demo(
    folder: str | os.PathLike[str] = "demo-output",
    *,
    bits: BitWidths | None = None,
    epochs: int = 12,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Trains a small CNN with batch norms on scikit-learn's digits and takes it to proven fixed point.

    Args:
        folder: created where it does not exist; files in it are overwritten only with `force`.
        bits: widths and contract.
        epochs: of training; a few seconds.
        seed: of the data split and the training.
        force: overwrite.
        progress: called with (done, total, what).

    Raises:
        UsageError: the folder cannot be used.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{target}: cannot be made: {error.strerror}") from None
    paths = {name: target / name for name in FILES}
    for path in paths.values():
        check_writable(path, force=force)
    digits = demo_digits(seed)
    with atomic_path(paths["calibration.npy"], force=True) as file, file.open("wb") as stream:
        np.save(stream, digits.calibration)
    with atomic_path(paths["test.npz"], force=True) as file, file.open("wb") as stream:
        np.savez(stream, x=digits.test, y=digits.test_labels)
    network = train(digits, epochs=epochs, seed=seed, progress=progress)
    save_keras(network, paths["digits.keras"], force=True)

    conversion = convert(paths["digits.keras"])
    save(conversion.model, paths["digits.onnx"], force=True)
    quantization = quantize(paths["digits.onnx"], paths["calibration.npy"], bits=bits, progress=progress)
    save(quantization.model, paths["digits.q.onnx"], force=True)
    exactness = check(paths["digits.q.onnx"], paths["test.npz"], engines=("oracle", "ort", "tf"), progress=progress)
    _int4(network, digits, paths, bits or BitWidths(), seed, progress)
    retrained = check(paths[RETRAINED], paths["test.npz"], engines=("oracle", "ort", "tf"), progress=progress)
    models = {name: paths[name] for name in ("digits.onnx", "digits.q.onnx", INT4, RETRAINED)}
    accuracy = evaluate(models, paths["test.npz"], progress=progress)
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    return DemoResult(target, sizes, conversion.difference, exactness, retrained, accuracy, (bits or BitWidths()).weight)


def _int4(network: Any, digits: DigitSplits, paths: dict[str, Path], bits: BitWidths, seed: int, progress: Progress | None) -> None:
    """Writes the models with weights of 4 bits: thresholds calibrated, and weights and thresholds trained."""
    narrow = replace(bits, weight=4)
    source = convert(network, keep_batch_norm=True).model
    save(quantize(source, digits.calibration, bits=narrow, progress=progress).model, paths[INT4], force=True)
    trained = retrain(
        source,
        (digits.train, digits.train_labels),
        calibration=digits.calibration,
        select=None,
        bits=narrow,
        schedule=make_schedule(batch=32, epochs=10, weight_lr=1e-3, weight_schedule="cosine"),
        seed=seed,
        progress=progress,
    )
    save(trained.model, paths[RETRAINED], force=True)


def build() -> Any:
    """A `keras.Model` for 8 x 8 digits with what the road covers: conv, depthwise, BN, relu, relu6, residual, pools, dense."""
    import keras
    from keras import layers

    def block(x: Any, layer: Any, activation: Any) -> Any:
        x = layers.BatchNormalization(momentum=0.9)(layer(x))  # so few steps would not move the default's statistics far
        return x if activation is None else activation(x)

    x = inputs = keras.Input((8, 8, 1), name="image")
    x = block(x, layers.Conv2D(16, 3, padding="same", use_bias=False), layers.ReLU())
    x = block(x, layers.DepthwiseConv2D(3, padding="same", use_bias=False), layers.ReLU(max_value=6.0))
    x = shortcut = block(x, layers.Conv2D(24, 1, use_bias=False), layers.ReLU())
    x = block(x, layers.Conv2D(24, 3, padding="same", use_bias=False), None)
    x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.MaxPooling2D(2)(x)
    x = block(x, layers.Conv2D(32, 3, padding="same"), layers.ReLU())
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="digit")(x), name="digits")


def train(digits: DigitSplits, *, epochs: int, seed: int, progress: Progress | None = None) -> Any:
    """Trains `build()` with Adam on the training digits; seeded, so that one machine gives the same network twice."""
    from ..frontend_tf.quiet import quiet

    with quiet():  # TensorFlow writes to standard error while it is being loaded
        import keras

    keras.utils.set_random_seed(seed)
    network = build()
    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")

    def report(epoch: int, _: Any) -> None:
        if progress is not None:
            progress(epoch + 1, epochs, "training")

    told = keras.callbacks.LambdaCallback(on_epoch_end=report)
    network.fit(digits.train, digits.train_labels, batch_size=64, epochs=epochs, verbose=0, callbacks=[told])
    return network
