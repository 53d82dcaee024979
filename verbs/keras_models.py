"""`to_keras` and `from_keras`: the regenerated network as a Keras model for a training loop of one's own, and back.

model = to_keras("net.onnx", images)
model.compile(...); model.fit(...)
save(from_keras(model).model, "trained.onnx")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..calibrate import PERCENTILE
from ..ir import ModelError, UsageError, atomic_path
from ..passes import BitWidths
from .preparation import Prepared, calibrate_prepared, check_methods, decide_trained, lowered, prepare
from .quantize import Quantization, finish
from .sources import Data, Progress, open_model

if TYPE_CHECKING:
    import onnx_ir

    from ..backend_tf import RegeneratedModel
    from ..datasets import Preprocessing
    from ..passes import Pass

_STATISTICS: Final = ("frozen", "moving")


def to_keras(
    model: onnx_ir.Model | str | os.PathLike[str],
    calibration: Data | None = None,
    *,
    bits: BitWidths | None = None,
    method: str = "mse",
    percentile: float = PERCENTILE,
    weight_method: str = "3sd",
    parallel: bool = False,
    ignore_ranges: bool = False,
    passes: str | Sequence[Pass] | None = None,
    preprocess: str | Preprocessing = "none",
    limit: int | None = None,
    seed: int | None = None,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
    batch_norm: Literal["frozen", "moving"] = "frozen",
    batch_norm_momentum: float = 0.99,
    progress: Progress | None = None,
) -> RegeneratedModel:
    """A float model as a Keras model with trainable weights and thresholds, calibrated as `quantize` would (R1).

    Its outputs are those of the quantized network, bit for bit, and train under `fit` as any Keras model's. Layers that
    `convert --keep-batch-norm` left a batch norm have its gamma and beta as variables (B2); `folded_layers` of the result lists
    those where that is not possible.

    Args:
        model: float ONNX, as `convert` gives it; a model in memory is not changed.
        calibration: what the first thresholds are from; as for `quantize`, as are all arguments up to `exclude`. Without any, the
            result is the float network, without thresholds.
        bits: widths and contract.
        method: of activation thresholds.
        percentile: of that method.
        weight_method: of weight thresholds; `3sd` is the paper's for training (C1).
        parallel: one float pass instead of the sequential walk.
        ignore_ranges: measure tensors too whose range came with the source.
        passes: instead of the recipes.
        preprocess: preset for images.
        limit: use at most so many examples.
        seed: draw them at random.
        exclude: names of examples to leave out.
        batch_norm: `frozen` trains with the moving statistics as they are; `moving` with those of each batch, as an ordinary batch
            norm does, until `statistics_frozen` of the result is set.
        batch_norm_momentum: how much of the moving statistics a step keeps.
        progress: called with (done, total, what).

    Raises:
        ModelError: unreadable, or quantized already.
        UnsupportedError: nothing to quantize, or an operator that has no counterpart in TensorFlow.
        DataError: data that does not fit, or holds NaN or Inf.
        UsageError: an unknown method or word, or a list of passes that cannot be read.
    """
    if batch_norm not in _STATISTICS:
        raise UsageError(f"batch_norm must be one of {', '.join(_STATISTICS)}. Received: {batch_norm!r}")
    check_methods(method, weight_method)
    from ..frontend_tf.quiet import quiet

    with quiet():
        from ..backend_tf import regenerate
    trained: dict[str, Any] = {"batch_norm_momentum": batch_norm_momentum, "statistics_frozen": batch_norm == "frozen"}
    if calibration is None:
        source = open_model(model)
        own = source if isinstance(model, (str, os.PathLike)) else source.clone()
        return regenerate(lowered(own, bits or BitWidths(), passes), **trained)
    prepared = prepare(
        model,
        calibration,
        bits=bits,
        ignore_ranges=ignore_ranges,
        passes=passes,
        preprocess=preprocess,
        limit=limit,
        seed=seed,
        exclude=exclude,
    )
    calibrated = calibrate_prepared(
        prepared, method=method, percentile=percentile, weight_method=weight_method, parallel=parallel, progress=progress
    )
    return regenerate(prepared.model, calibrated.graph, calibrated.log2_thresholds, **trained)


def from_keras(model: RegeneratedModel | str | os.PathLike[str]) -> Quantization:
    """The quantized ONNX model of a network that `to_keras` made, with its present weights and thresholds (R5).

    Batch norms are folded with their moving statistics, and Q/DQ pairs inserted, by the same code as in static mode.

    Args:
        model: the Keras model, or the `.keras` file that its `save` wrote; nothing in a file is run.

    Raises:
        ModelError: another Keras model, a file of something else, or weights that are not finite.
        UsageError: a model without quantizers.
        UnsupportedError: a threshold has left the exact range (Q5).
    """
    from ..frontend_tf.quiet import quiet

    with quiet():
        from ..backend_tf import RegeneratedModel, load_model
    regenerated = load_model(model) if isinstance(model, (str, os.PathLike)) else model
    if not isinstance(regenerated, RegeneratedModel):
        raise ModelError(f"a Keras model that `to_keras` made is expected. Received: {type(regenerated).__name__}")
    graph = regenerated.quantizer_graph()
    unsigned = any(quantizer.role == "input" and not quantizer.signed for quantizer in graph.quantizers)
    widths = BitWidths(layer=16 if graph.contract == "layer16" else 32, unsigned_input=unsigned)
    prepared = Prepared(regenerated.float_model(), graph, None, widths, {})
    return finish(prepared, decide_trained(prepared.model, prepared.graph, regenerated.log2_thresholds()))


def save_keras(model: Any, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Writes a Keras model, whole or not at all.

    Args:
        model: a `keras.Model`.
        path: of the `.keras` file.
        force: whether an existing file is overwritten.

    Raises:
        UsageError: the file exists, or cannot be written.
    """
    with atomic_path(path, force=force) as file:
        named = file.with_suffix(".keras")  # Keras goes by the suffix
        try:
            model.save(named)
            named.replace(file)
        finally:
            named.unlink(missing_ok=True)
    return Path(path)
