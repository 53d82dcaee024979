"""`quantize --tune`: weights and biases adjusted layer by layer to unlabelled calibration images, where static mode loses.

One sequential walk with the float network beside it (`calibrate/tuned.py`); the result goes through the same insertion of Q/DQ
pairs as a static one (R5). What is shipped is whichever is closer to the float model on images that were kept back.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir

from ..calibrate import FEWEST_TO_HOLD, HOLD_EVERY, PERCENTILE, TunedRow, calibrate_tuned
from ..ir import QuantizerGraph, UsageError, fed_inputs, static_shape
from ..passes import insert_qdq
from .agreement import Agreement, agreement
from .preparation import decide_trained
from .sources import Feeds, Progress

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

MINUTES: Final = 5.0
"""Default time budget."""

_FULL: Final = 0.5
"""Share of the budget for the full treatment; the rest is for the quick version of the layers left, and for judging."""

_JUDGED: Final = 100
"""At most so many examples judge the whole network."""


@dataclass(frozen=True)
class TuningReport:
    """What tuning did.

    Attributes:
        before: the static model against the float model, on images that were not fitted where there were enough.
        after: the tuned model on the same images.
        kept: `tuned`, or `static` where that was closer to the float model.
        layers: what happened to each layer.
        in_time: whether every layer got its full treatment within the time budget.
        seconds: wall time.
    """

    before: Agreement
    after: Agreement
    kept: str
    layers: tuple[TunedRow, ...]
    in_time: bool
    seconds: float

    @property
    def final(self) -> Agreement:
        """What is shipped, on the images that were kept back."""
        return self.after if self.kept == "tuned" else self.before

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self) | {"before": self.before.to_dict(), "after": self.after.to_dict()}


@dataclass(frozen=True)
class Tuned:
    """A tuned network.

    Attributes:
        model: the lowered float model with new weights and biases; weights lie on their grid already.
        log2_thresholds: share group -> binary logarithm of the real threshold.
        report: what was done and what it brought.
    """

    model: onnx_ir.Model
    log2_thresholds: dict[str, float]
    report: TuningReport


def tune(
    lowered: onnx_ir.Model,
    graph: QuantizerGraph,
    batches: Callable[[], Iterable[Feeds]],
    thresholds: Mapping[str, float],
    *,
    minutes: float = MINUTES,
    seed: int = 0,
    given: Mapping[str, float] | None = None,
    method: str = "mse",
    percentile: float = PERCENTILE,
    progress: Progress | None = None,
) -> Tuned:
    """Repairs a statically quantized network from unlabelled images, in closed form.

    Args:
        lowered: the lowered float model; it is not changed.
        graph: its quantizers.
        batches: gives a fresh iterator of feeds each time.
        thresholds: the statically decided ones, of every share group.
        minutes: time budget; once it is used up, the layers left get a quick version, so that there always is a result.
        seed: of the places in the images that are looked at.
        given: thresholds that came with the source, which stay.
        method: how activation thresholds are decided.
        percentile: for that method.
        progress: called with (done, total, what).

    Raises:
        UsageError: a time budget that is not positive.
        As `calibrate`.
    """
    if not minutes > 0:
        raise UsageError(f"tuning needs a positive number of minutes. Received: {minutes}")
    began = time.monotonic()
    found = calibrate_tuned(
        lowered,
        graph,
        batches,
        static=thresholds,
        method=method,
        percentile=percentile,
        given=given,
        deadline=began + 60 * minutes * _FULL,
        seed=seed,
        progress=progress,
    )
    model = with_constants(lowered, found.constants)
    decided = decide_trained(model, graph, found.thresholds)  # what is shipped is what is judged
    judged = _kept_back(lowered, batches, found.images)
    before, after = (
        agreement(lowered, insert_qdq(each, exponents), judged, limit=None)
        for each, exponents in ((lowered, graph.decide(thresholds)), (model, decided.graph))
    )
    better = after.better_than(before)
    if not better:
        logger.warning("tuning did not help: the statically quantized model is closer to the float model, and is kept")
    seconds = time.monotonic() - began
    report = TuningReport(before, after, "tuned" if better else "static", found.rows, found.in_time, seconds)
    return Tuned(model, decided.log2_thresholds, report) if better else Tuned(lowered.clone(), dict(thresholds), report)


def with_constants(model: onnx_ir.Model, arrays: Mapping[str, npt.NDArray[Any]]) -> onnx_ir.Model:
    """A copy of a model with other contents in some of its initializers."""
    copy = model.clone()
    for name, array in arrays.items():
        copy.graph.initializers[name].const_value = onnx_ir.tensor(array, name=name)
    return copy


def _kept_back(model: onnx_ir.Model, batches: Callable[[], Iterable[Feeds]], images: int) -> list[Feeds]:
    """Of the examples that the walk keeps back some, evenly spaced, one by one.

    Of all where they are few, and whole batches where the model's batch is fixed to several.
    """
    sizes = {(shape[0] or 1) if (shape := static_shape(value)) else None for value in fed_inputs(model.graph)}
    single = sizes == {1}
    units = images if single else images // max(filter(None, sizes), default=1)
    if single and images >= FEWEST_TO_HOLD:
        places = np.arange(HOLD_EVERY - 1, images, HOLD_EVERY)
        chosen = places[np.linspace(0, len(places) - 1, min(len(places), _JUDGED)).astype(int)]
    else:
        chosen = np.linspace(0, units - 1, min(max(units, 1), FEWEST_TO_HOLD)).astype(int)
    wanted = set(chosen.tolist())
    held: list[Feeds] = []
    count = 0
    for feeds in batches():
        for row in range(min(map(len, feeds.values()), default=0) if single else 1):
            if count in wanted:
                held.append({name: array[row : row + 1].copy() for name, array in feeds.items()} if single else feeds)
            count += 1
    return held
