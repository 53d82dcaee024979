"""`check`: do all engines compute the same integers? The int64 oracle against onnxruntime and TensorFlow, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ..ir import ModelError, UsageError, quantizers_of
from .sources import Feeder, Progress, open_model

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Dataset
    from ..verify import CheckResult

ENGINES = ("oracle", "ort", "tf")


def check(
    model: onnx_ir.Model | str | os.PathLike[str],
    data: Dataset | npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str],
    *,
    engines: Sequence[str] = ("oracle", "ort"),
    copies: Mapping[str, onnx_ir.Model] | None = None,
    preprocess: str = "none",
    limit: int | None = None,
    seed: int | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> CheckResult:
    """Runs a quantized model in several engines and compares every integer tensor.

    Args:
        model: Q/DQ model written by `quantize`.
        data: inputs to run; more of them make the comparison stronger, the certificate needs none.
        engines: of `oracle` (always on), `ort` (onnxruntime, optimizations off for every tensor and on for the outputs)
            and `tf` (the regenerated TensorFlow graph; loads TensorFlow).
        copies: engine -> a model of its own to run instead of `model`, to see whether a difference is found.
        preprocess: preset for images.
        limit: at most so many examples.
        seed: draw them at random.
        batch_size: examples run at once.
        progress: called with (done, total, what).

    Raises:
        ModelError: not a quantized model.
        UsageError: an unknown engine.
        DataError: data that does not fit.
    """
    from ..verify import check_engines

    unknown = [name for name in (*engines, *(copies or ())) if name not in (*ENGINES, "ort-optimized")]
    if unknown:
        raise UsageError(f"engines are {', '.join(ENGINES)}. Received: {', '.join(unknown)}")
    if not set(engines) - {"oracle"}:
        raise UsageError("the oracle needs an engine to be compared with: ort, tf or both")
    opened = open_model(model)
    if quantizers_of(opened) is None:
        raise ModelError("not a quantized model: it carries no tqt_onnx.quantizers; `quantize` writes them")
    feeder = Feeder(opened, data, preprocess=preprocess, limit=limit, seed=seed)
    own = dict(copies or {})
    runners = {}
    if "tf" in engines:
        runners["tf"] = tensorflow_runner(own.pop("tf", opened))
    return check_engines(
        opened,
        _counted(feeder, batch_size, progress),
        engines=tuple(dict.fromkeys(("oracle", *engines))),
        runners=runners,
        models=own,
    )


def tensorflow_runner(model: onnx_ir.Model) -> Any:
    """The regenerated TensorFlow graph of a Q/DQ model as a function feeds -> integer tensors by name (R3)."""
    from ..frontend_tf.quiet import quiet

    with quiet():
        from ..backend_tf import regenerate
        from ..passes import remove_qdq

        lowered, graph = remove_qdq(model)
        return regenerate(lowered, graph).integers


def _counted(feeder: Feeder, batch_size: int, progress: Progress | None) -> Any:
    done = 0
    for feeds in feeder.feeds(batch_size):
        yield feeds
        done += len(next(iter(feeds.values())))
        if progress is not None:
            progress(done, len(feeder), "comparing")
