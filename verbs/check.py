"""`check`: do all engines compute the same integers? The int64 oracle against onnxruntime and TensorFlow, bit for bit.

Each slice of the data is run once in the oracle (once more for an engine that has integers of its own behind a float island
or a layer without certificate, and once more for a target's rounding), once in every engine and, for the noise, once in the
float model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..ir import ModelError, UsageError, fed_inputs, name_of, quantizers_of
from .exhaustion import exhaust, observed_on
from .sources import Data, Feeder, Progress, open_model

if TYPE_CHECKING:
    import onnx_ir

    from ..verify import CheckResult

ENGINES: Final = ("oracle", "ort", "tf")
COPIES: Final = {"oracle": "oracle", "ort": "ort", "ort-optimized": "ort", "tf": "tf"}
"""What can be given a copy of its own -> the engine it belongs to."""


def check(
    model: onnx_ir.Model | str | os.PathLike[str],
    data: Data | None = None,
    *,
    engines: Sequence[str] = ("oracle", "ort"),
    copies: Mapping[str, onnx_ir.Model] | None = None,
    float_model: onnx_ir.Model | str | os.PathLike[str] | None = None,
    rounding: str | None = None,
    preprocess: str = "none",
    limit: int | None = None,
    seed: int | None = None,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> CheckResult:
    """Runs a quantized model in several engines and compares every integer tensor.

    Args:
        model: Q/DQ model written by `quantize`.
        data: inputs to run; more of them make the comparison stronger. Without any, only the certificates are made: nothing is
            compared, and the result is not `ok`.
        engines: of `oracle` (always on), `ort` (onnxruntime, optimizations off for every tensor and on for the outputs)
            and `tf` (the regenerated TensorFlow graph; loads TensorFlow).
        copies: engine -> a model of its own to run instead of `model`, to see whether a difference is found.
        float_model: the float model that was quantized; the noise of every tensor is measured against it (`result.sqnr`).
        rounding: of a target, a name of `verify.ROUNDINGS`; what it changes is counted (`result.rounding`). The comparison of the
            engines stays that of the model's own rounding.
        preprocess: preset for images.
        limit: at most so many examples.
        seed: draw them at random.
        exclude: names of examples to leave out, or a file of them, as `calibration-set --list` writes it.
        batch_size: examples run at once.
        progress: called with (done, total, what).

    Raises:
        ModelError: not a quantized model, one whose recorded quantizers are not those of its nodes, or a copy or a float model
            that is another network.
        UsageError: an unknown engine or rounding, a copy for an engine that is not run, or a comparison asked for without data.
        DataError: data that does not fit.
    """
    from ..passes import remove_qdq
    from ..verify import RoundingMeter, check_certificates, check_engines

    _check_engines(engines, copies or {})
    opened = open_model(model)
    if quantizers_of(opened) is None:
        raise ModelError("not a quantized model: it carries no tqt_onnx.quantizers; `quantize` writes them")
    remove_qdq(opened)  # finds recorded quantizers that are not those of the nodes
    for engine, copy in (copies or {}).items():
        _check_copy(opened, copy, engine)
    if data is None:
        if copies or float_model is not None or rounding is not None:
            raise UsageError("a copy, a float model or a rounding is compared on data. Received: no data")
        return check_certificates(opened)
    reference = None if float_model is None else lowered_reference(opened, float_model)
    feeder = Feeder(opened, data, preprocess=preprocess, limit=limit, seed=seed, exclude=exclude)
    own = dict(copies or {})
    meter = None if rounding is None else RoundingMeter(own.get("oracle", opened), rounding)
    runners = {}
    if "tf" in engines:
        runners["tf"] = tensorflow_runner(own.pop("tf", opened))
    chosen = tuple(dict.fromkeys(("oracle", *engines)))
    result = check_engines(
        opened,
        _counted(feeder, batch_size, progress),
        engines=chosen,
        runners=runners,
        models=own,
        float_model=reference,
        exhaust=exhaust(opened, chosen, {"tf": tensorflow_runner}),
        listen=meter,
    )
    if meter is not None:
        result = replace(result, rounding=meter.result(result.ties, result.requantized))
    if result.exhausted:
        return replace(result, notes=(*result.notes, observed_on(len(result.exhausted), chosen)))
    return result


def lowered_reference(model: onnx_ir.Model, float_model: onnx_ir.Model | str | os.PathLike[str]) -> onnx_ir.Model:
    """The float model as `quantize` lowered it, with its own weights: every quantized value has its name there.

    Args:
        model: a Q/DQ model.
        float_model: what it was made from, as `convert` wrote it; a model in memory is not changed.

    Raises:
        ModelError: unreadable, or quantized itself.
    """
    from ..passes import lower, optimize

    graph = quantizers_of(model)
    assert graph is not None
    opened = open_model(float_model)
    if quantizers_of(opened) is not None:
        raise ModelError("the float model is quantized itself; the model that `quantize` read is expected")
    result = opened if isinstance(float_model, (str, os.PathLike)) else opened.clone()
    optimize(result)
    inputs = [quantizer for quantizer in graph.quantizers if quantizer.role == "input"]
    lower(result, graph.contract, unsigned_input=bool(inputs) and not any(quantizer.signed for quantizer in inputs))
    return result


def tensorflow_runner(model: onnx_ir.Model) -> Any:
    """The regenerated TensorFlow graph of a Q/DQ model as a function feeds -> integer tensors and outputs by name (R3)."""
    from ..frontend_tf.quiet import quiet

    with quiet():
        from ..backend_tf import regenerate
        from ..passes import remove_qdq

        lowered, graph = remove_qdq(model)
        return regenerate(lowered, graph).everything


def _check_engines(engines: Sequence[str], copies: Iterable[str]) -> None:
    unknown = [name for name in engines if name not in ENGINES]
    if unknown:
        raise UsageError(f"engines are {', '.join(ENGINES)}. Received: {', '.join(unknown)}")
    if not set(engines) - {"oracle"}:
        raise UsageError("the oracle needs an engine to be compared with: ort, tf or both")
    for name in copies:
        if name not in COPIES:
            raise UsageError(f"copies can be given to {', '.join(COPIES)}. Received: {name}")
        if COPIES[name] not in (*engines, "oracle"):
            raise UsageError(
                f"a copy is given to {name!r}, but --engines does not name {COPIES[name]}. Received: {','.join(engines)}"
            )


def _check_copy(model: onnx_ir.Model, copy: onnx_ir.Model, engine: str) -> None:
    """A copy may differ in numbers only: tensors are compared by name."""
    if quantizers_of(copy) is None:
        raise ModelError(f"the copy for {engine!r} is not a quantized model")
    odd = _names(model) ^ _names(copy)
    if odd:
        raise ModelError(f"the copy for {engine!r} is another network: only one of the two has the tensor {min(odd)!r}")


def _names(model: onnx_ir.Model) -> set[str]:
    return {name_of(value) for value in (*fed_inputs(model.graph), *(output for node in model.graph for output in node.outputs))}


def _counted(feeder: Feeder, batch_size: int, progress: Progress | None) -> Any:
    done = 0
    for feeds in feeder.feeds(batch_size):
        yield feeds
        done += len(next(iter(feeds.values())))
        if progress is not None:
            progress(done, len(feeder), "comparing")
