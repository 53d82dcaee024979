"""What comes in front of every quantized model: a float model made ready, and the exponents of its quantizers.

Static mode, tuning, retraining and Keras models begin here; `quantize.finish` is where all of them end (R5).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..calibrate import METHODS, PERCENTILE, WEIGHT_METHODS, calibrate
from ..ir import (
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
    annotate,
    lower,
    optimize,
    parse_passes,
    recorded_thresholds,
    refuse_unlowered,
    run_passes,
    weight_floors,
)
from .sources import Data, Feeder, Feeds, Progress, open_model, refuse_negative

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Preprocessing
    from ..passes import Pass

logger = logging.getLogger(__name__)


_ATTEMPTS: Final = 3
"""Calibrations at most: a second one where a bias needs room, a third where that moved the scale of the layer's input."""

BATCH: Final = 8
"""Images run at once while calibrating: bounds memory, and is enough to keep the cores busy."""


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


def decide_trained(model: onnx_ir.Model, graph: QuantizerGraph, log2_thresholds: Mapping[str, float]) -> Calibrated:
    """Exponents of thresholds that were trained or tuned; weights whose bias would overflow an int32 get a coarser scale (L11).

    Args:
        model: lowered, with the weights that were trained.
        graph: its quantizers.
        log2_thresholds: by share group.

    Raises:
        UnsupportedError: scales outside the exact range (Q5).
    """
    thresholds = dict(log2_thresholds)
    decided = graph.decide(thresholds)
    for _ in range(_ATTEMPTS):
        floors = weight_floors(model, decided)
        if not floors:
            break
        logger.warning("%s: trained so fine that the bias overflows an int32; their scale is made coarser (L11)", ", ".join(floors))
        thresholds |= floors
        decided = graph.decide(thresholds)
    return Calibrated(thresholds, decided)


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
