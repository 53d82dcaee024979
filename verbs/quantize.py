"""`quantize`: an optimized float model becomes a Q/DQ model with calibrated power-of-two scales (static mode)."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .. import __version__
from ..calibrate import PERCENTILE
from ..ir import (
    RANGES_KEY,
    VERSION_KEY,
    QuantizerGraph,
    UsageError,
)
from ..passes import (
    BitWidths,
    Function,
    InferShapes,
    Island,
    functions,
    insert_qdq,
    islands,
)
from .agreement import IMAGES, Agreement, agreement
from .preparation import BATCH, Calibrated, Prepared, calibrate_prepared, check_methods, decide_trained, prepare
from .sources import Data, Progress

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Preprocessing
    from ..passes import Pass
    from .tune import TuningReport

logger = logging.getLogger(__name__)

SCHEMA: Final = "tqt_onnx.quantization/1"


@dataclass(frozen=True)
class Quantization:
    """A quantized model and what was decided.

    Attributes:
        model: Q/DQ, ready to be saved, checked and exported.
        graph: its quantizers with their exponents; the model's metadata holds the same.
        log2_thresholds: share group -> binary logarithm of the real threshold (where training would start).
        islands: nodes that stay float, with the reason.
        images: how many calibration examples were used.
        tables: functions of one tensor, Sigmoid or swish for instance, that are tables of 256 entries (L12).
        recorded: share groups whose thresholds came with the source (FakeQuant nodes) instead of from the data.
        agreement: with the float network on calibration examples, or None where it was not measured.
        tuning: what `tune` did, or None.
    """

    model: onnx_ir.Model
    graph: QuantizerGraph
    log2_thresholds: dict[str, float]
    islands: tuple[Island, ...]
    images: int
    recorded: tuple[str, ...] = ()
    tables: tuple[Function, ...] = ()
    agreement: Agreement | None = None
    tuning: TuningReport | None = None

    @property
    def float_layers(self) -> tuple[Island, ...]:
        """What stays float beyond the Softmax at the end: what `--strict` objects to."""
        return tuple(island for island in self.islands if not island.expected)

    def to_dict(self) -> dict[str, Any]:
        """Everything that was decided, for JSON."""
        return {
            "schema": SCHEMA,
            "contract": self.graph.contract,
            "images": self.images,
            "quantizers": [dataclasses.asdict(quantizer) for quantizer in self.graph.quantizers],
            "log2_thresholds": dict(self.log2_thresholds),
            "recorded": list(self.recorded),
            "islands": [dataclasses.asdict(island) for island in self.islands],
            "tables": [dataclasses.asdict(table) for table in self.tables],
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "tuning": None if self.tuning is None else self.tuning.to_dict(),
        }


def quantize(
    model: onnx_ir.Model | str | os.PathLike[str],
    calibration: Data,
    *,
    bits: BitWidths | None = None,
    method: str = "mse",
    percentile: float = PERCENTILE,
    weight_method: str = "mse",
    parallel: bool = False,
    ignore_ranges: bool = False,
    passes: str | Sequence[Pass] | None = None,
    preprocess: str | Preprocessing = "none",
    limit: int | None = None,
    seed: int | None = None,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
    tune: bool = False,
    tune_minutes: float = 5.0,
    progress: Progress | None = None,
) -> Quantization:
    """Quantizes a float model with thresholds taken from calibration data.

    Args:
        model: float ONNX, as `convert` gives it; a model in memory is not changed.
        calibration: inputs as the network sees them, or images with a `preprocess` preset.
        bits: widths and contract; int8 and `layer16` by default.
        method: how activation thresholds are decided, a row of `calibrate.METHODS`.
        percentile: what the method `percentile` covers, in percent.
        weight_method: the same for weights, a row of `calibrate.WEIGHT_METHODS`; `max` is the paper's.
        parallel: one float pass for all tensors instead of layer after layer on quantized inputs.
        ignore_ranges: measure tensors too whose range came with the source (FakeQuant nodes).
        passes: what to run instead of the recipes `optimize` and `quantize`, as text or as passes.
        preprocess: preset for images.
        limit: use at most so many examples.
        seed: draw them at random; of `tune` too.
        exclude: names of examples to leave out, or a file of them, as `calibration-set --list` writes it.
        tune: repair layers from the calibration data, which need no labels (`verbs.tune`).
        tune_minutes: time for it, at most.
        progress: called with (done, total, what).

    Raises:
        ModelError: unreadable, or quantized already.
        UnsupportedError: nothing to quantize, or scales outside the exact range.
        DataError: data that does not fit, or holds NaN or Inf.
        UsageError: an unknown method, a list of passes that cannot be read, or `tune` with `parallel`.
    """
    check_methods(method, weight_method)
    if tune and parallel:
        raise UsageError("tuning is a sequential walk; `tune` without `parallel` is expected. Received: both")
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
    if not tune:
        return measured(prepared, finish(prepared, calibrated))
    from .tune import tune as repair

    tuned = repair(
        prepared.model,
        prepared.graph,
        prepared.feeds,
        calibrated.log2_thresholds,
        minutes=tune_minutes,
        seed=seed or 0,
        given=prepared.given,
        method=method,
        percentile=percentile,
        progress=progress,
    )
    repaired = replace(prepared, model=tuned.model)
    found = finish(repaired, decide_trained(tuned.model, prepared.graph, tuned.log2_thresholds))
    return replace(found, agreement=tuned.report.final, tuning=tuned.report)  # on images that were kept back


def measured(prepared: Prepared, quantization: Quantization) -> Quantization:
    """The same with its agreement with the float network, on some of the calibration data, evenly spaced."""
    assert prepared.feeder is not None
    chosen = prepared.feeder.spread(IMAGES)
    found = agreement(prepared.model, quantization.model, chosen.feeds(chosen.rows(BATCH)))
    return replace(quantization, agreement=found)


def finish(prepared: Prepared, calibrated: Calibrated) -> Quantization:
    """Writes the Q/DQ pairs: the one way to a quantized model, whoever decided its thresholds and weights (R5).

    Args:
        prepared: whose model holds the weights to be quantized.
        calibrated: every threshold and exponent.
    """
    unsigned = prepared.widths.unsigned_input
    left = tuple(islands(prepared.model, unsigned_input=unsigned))
    tables = tuple(functions(prepared.model, unsigned_input=unsigned))
    quantized = insert_qdq(prepared.model, calibrated.graph)
    InferShapes().apply(quantized)
    quantized.metadata_props[VERSION_KEY] = __version__
    quantized.metadata_props.pop(RANGES_KEY, None)
    return Quantization(
        quantized,
        calibrated.graph,
        calibrated.log2_thresholds,
        left,
        0 if prepared.feeder is None else len(prepared.feeder),
        tuple(sorted(prepared.given)),
        tables,
    )
