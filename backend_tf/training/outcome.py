"""The end of a training: the state that is kept goes into the model, and what was done is told."""

from __future__ import annotations

from .data import TrainingBatches
from .loop import Loop
from .result import TrainedThreshold, TrainingResult
from .state import TrainingState


def finish(
    state: TrainingState,
    loop: Loop,
    batches: TrainingBatches,
    *,
    best: bool,
    blown_up: bool = False,
    select_name: str,
    interrupted: bool = False,
    resumed_from: int | None = None,
) -> TrainingResult:
    """Leaves a state in the model: the best, or the last; where that blew up, the one that was kept (`TrainingState.keep`).

    Where a `quant_delay` is not over, nothing is chosen by validations of the float network, and none are told.

    Args:
        state: of the training.
        loop: that changed it.
        batches: the training data.
        best: whether the best validated state is kept.
        blown_up: whether the present state is of no use.
        select_name: the data that selected it.
        interrupted: whether Ctrl-C ended the training.
        resumed_from: step of the checkpoint it went on from.
    """
    facts, kept, selected_by = state.facts, state.facts.step, "nothing: the last step"
    chosen = None if loop.delayed else facts.best
    if loop.delayed:
        selected_by = "nothing: the last step, in float, as the quantizers were not on yet"
    if blown_up or (best and chosen is not None):
        kept, selected_by = facts.kept_step, "nothing: the last state that is known to be finite"
        if chosen is not None:
            selected_by = f"{'loss' if chosen.accuracy is None else 'accuracy'} on {select_name}"
        elif facts.kept_loss is not None:
            selected_by = "the training loss"
        state.to_best()
    state.model.set_thresholds(state.thresholds())
    state.model.statistics_frozen = True
    final = zip(state.model.groups, state.thresholds().tolist(), strict=True)
    return TrainingResult(
        steps=facts.step,
        total=loop.total,
        epochs=facts.step / batches.steps_per_epoch,
        kept=kept,
        selected_by=selected_by,
        history=() if loop.delayed else tuple(facts.history),
        thresholds=tuple(
            TrainedThreshold(group, facts.initial.get(group, value), value, facts.frozen_at.get(group)) for group, value in final
        ),
        seconds_per_step=loop.seconds_per_step,
        interrupted=interrupted,
        resumed_from=resumed_from,
        ended_by=loop.ended_by,
    )
