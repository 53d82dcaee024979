"""`quantize`: an optimized float model becomes a Q/DQ model with calibrated power-of-two scales (static mode)."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .. import __version__
from ..calibrate import METHODS, PERCENTILE, WEIGHT_METHODS, calibrate
from ..ir import (
    RANGES_KEY,
    VERSION_KEY,
    ModelError,
    QuantizerGraph,
    UnsupportedError,
    UsageError,
    fed_inputs,
    name_of,
    quantizers_of,
    static_shape,
)
from ..passes import (
    BitWidths,
    Function,
    InferShapes,
    Island,
    annotate,
    functions,
    insert_qdq,
    islands,
    lower,
    optimize,
    parse_passes,
    recorded_thresholds,
    refuse_unlowered,
    run_passes,
    weight_floors,
)
from .agreement import Agreement, agreement
from .sources import Data, Feeder, Feeds, Progress, open_model, refuse_negative

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Preprocessing
    from ..passes import Pass
    from .tune import TuningReport

logger = logging.getLogger(__name__)

SCHEMA: Final = "tqt_onnx.quantization/1"

_ATTEMPTS: Final = 3
"""Calibrations at most: a second one where a bias needs room, a third where that moved the scale of the layer's input."""

JUDGED: Final = 50
"""Calibration examples on which the agreement with the float network is measured: enough to tell a collapse from a small loss."""

BATCH: Final = 8
"""Images run at once while calibrating: bounds memory, and is enough to keep the cores busy."""


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


@dataclass(frozen=True)
class Prepared:
    """A float model as it will be quantized, before any threshold is known.

    Attributes:
        model: optimized and lowered, still float.
        graph: its quantizers, without exponents.
        feeder: the calibration data; None where thresholds come from elsewhere.
        widths: bits and contract.
        given: thresholds that came with the source (FakeQuant nodes), by share group.
    """

    model: onnx_ir.Model
    graph: QuantizerGraph
    feeder: Feeder | None
    widths: BitWidths
    given: dict[str, float]

    def feeds(self) -> Iterator[Feeds]:
        """The calibration data, batch by batch; inputs that were declared unsigned are checked."""
        assert self.feeder is not None
        return _signed_as_stated(self.feeder, self.widths)


@dataclass(frozen=True)
class Calibrated:
    """Statically decided thresholds.

    Attributes:
        log2_thresholds: share group -> binary logarithm of the real threshold.
        graph: the quantizers with their exponents.
    """

    log2_thresholds: dict[str, float]
    graph: QuantizerGraph


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
        UsageError: an unknown method, or a list of passes that cannot be read.
    """
    check_methods(method, weight_method)
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
    found = finish(repaired, decide_trained(repaired, tuned.log2_thresholds))
    return replace(found, agreement=tuned.report.final, tuning=tuned.report)  # on images that were kept back


def measured(prepared: Prepared, quantization: Quantization) -> Quantization:
    """The same with its agreement with the float network, on some of the calibration data, evenly spaced."""
    assert prepared.feeder is not None
    chosen = prepared.feeder.spread(JUDGED)
    found = agreement(prepared.model, quantization.model, chosen.feeds(chosen.rows(BATCH)))
    return replace(quantization, agreement=found)


def check_methods(method: str, weight_method: str) -> None:
    """Refuses unknown calibration methods before anything is opened.

    Raises:
        UsageError: a name that is in no table.
    """
    if method not in METHODS:
        raise UsageError(f"the calibration method must be one of {', '.join(METHODS)}. Received: {method!r}")
    if weight_method not in WEIGHT_METHODS:
        raise UsageError(f"the weight method must be one of {', '.join(WEIGHT_METHODS)}. Received: {weight_method!r}")


def prepare(
    model: onnx_ir.Model | str | os.PathLike[str],
    calibration: Data,
    *,
    bits: BitWidths | None = None,
    ignore_ranges: bool = False,
    passes: str | Sequence[Pass] | None = None,
    preprocess: str | Preprocessing = "none",
    limit: int | None = None,
    seed: int | None = None,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
) -> Prepared:
    """Optimizes, lowers and annotates a float model, and opens its calibration data; arguments and errors as for `quantize`."""
    widths = bits or BitWidths()
    source = open_model(model)
    _refuse_quantized(source)
    feeder = Feeder(source, calibration, preprocess=preprocess, limit=limit, seed=seed, exclude=exclude)
    prepared = lowered(source if isinstance(model, (str, os.PathLike)) else source.clone(), widths, passes)
    graph = annotate(prepared, widths)
    given = {} if ignore_ranges else recorded_thresholds(prepared, graph)
    return Prepared(prepared, graph, feeder, widths, given)


def lowered(model: onnx_ir.Model, widths: BitWidths, passes: str | Sequence[Pass] | None = None) -> onnx_ir.Model:
    """A float model with everything done that comes before its quantizers, in place.

    Args:
        model: float.
        widths: contract, and whether inputs are unsigned.
        passes: instead of the recipes.

    Raises:
        ModelError: quantized already, or with open sizes.
        UnsupportedError: nothing to quantize, or passes that do not lower it.
        UsageError: a list of passes that cannot be read.
    """
    _refuse_quantized(model)
    if passes is None:
        _refuse_open(model)
        optimize(model)
        lower(model, widths.contract, unsigned_input=widths.unsigned_input)
    else:
        run_passes(model, parse_passes(passes) if isinstance(passes, str) else passes)
        _refuse_open(model)
        refuse_unlowered(model, widths.contract, unsigned_input=widths.unsigned_input)
    return model


def calibrate_prepared(
    prepared: Prepared,
    *,
    method: str = "mse",
    percentile: float = PERCENTILE,
    weight_method: str = "mse",
    parallel: bool = False,
    progress: Progress | None = None,
) -> Calibrated:
    """Decides every threshold from the calibration data; arguments as for `quantize`.

    Raises:
        DataError: data that does not fit, or holds NaN or Inf.
        UnsupportedError: scales outside the exact range (Q5).
    """
    floors: dict[str, float] = {}
    for _ in range(_ATTEMPTS):
        thresholds = calibrate(
            prepared.model,
            prepared.graph,
            prepared.feeds,
            method=method,
            percentile=percentile,
            weight_method=weight_method,
            parallel=parallel,
            given=prepared.given,
            floors=floors,
            progress=progress,
        )
        decided = prepared.graph.decide(thresholds)
        more = weight_floors(prepared.model, decided)
        if not more:
            break
        logger.warning("%s: weights so fine that the bias overflows an int32; their scale is made coarser (L11)", ", ".join(more))
        floors |= more
    return Calibrated(thresholds, decided)


def decide_trained(prepared: Prepared, log2_thresholds: Mapping[str, float]) -> Calibrated:
    """Exponents of thresholds that were trained or tuned; weights whose bias would overflow an int32 get a coarser scale (L11).

    Args:
        prepared: whose model holds the trained weights.
        log2_thresholds: by share group.

    Raises:
        UnsupportedError: scales outside the exact range (Q5).
    """
    thresholds = dict(log2_thresholds)
    decided = prepared.graph.decide(thresholds)
    for _ in range(_ATTEMPTS):
        floors = weight_floors(prepared.model, decided)
        if not floors:
            break
        logger.warning("%s: trained so fine that the bias overflows an int32; their scale is made coarser (L11)", ", ".join(floors))
        thresholds |= floors
        decided = prepared.graph.decide(thresholds)
    return Calibrated(thresholds, decided)


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


def _signed_as_stated(feeder: Feeder, widths: BitWidths) -> Iterator[Feeds]:
    """The feeds; inputs that were declared unsigned are checked, since a negative one would silently become 0."""
    for feeds in feeder.feeds(feeder.rows(BATCH)):
        if widths.unsigned_input:
            refuse_negative(feeds, "calibration")
        yield feeds


def _refuse_quantized(model: onnx_ir.Model) -> None:
    if quantizers_of(model) is not None:
        raise ModelError("the model is quantized already; the float model that `convert` wrote is expected")
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise UnsupportedError(f"node {node.name!r} is a {node.op_type} of another tool; a float model is expected")


def _refuse_open(model: onnx_ir.Model) -> None:
    """Sums, averages and reshapes are of fixed size in hardware, and so is everything that lowering writes."""
    for value in fed_inputs(model.graph):
        shape = static_shape(value)
        if shape is None or None in shape[1:]:
            written = "no shape" if shape is None else f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"
            raise ModelError(
                f"input {name_of(value)!r} leaves sizes open besides the batch; `convert --input-shape H,W,C` fixes them. "
                f"Received: {written}"
            )
