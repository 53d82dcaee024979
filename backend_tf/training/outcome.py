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
    select_name: str,
    interrupted: bool = False,
    resumed_from: int | None = None,
) -> TrainingResult:
    """Leaves a state in the model: the best, the last, or, where that holds no numbers and none was validated, the first.

    Args:
        state: of the training.
        loop: that changed it.
        batches: the training data.
        best: whether the best validated state is kept.
        select_name: the data that selected it.
        interrupted: whether Ctrl-C ended the training.
        resumed_from: step of the checkpoint it went on from.
    """
    facts, kept, selected_by = state.facts, state.facts.step, "nothing: the last step"
    if (best and facts.best is not None) or not state.is_finite():
        kept, selected_by = 0, "nothing: the beginning"
        if facts.best is not None:
            kept = facts.best.step
            selected_by = f"{'loss' if facts.best.accuracy is None else 'accuracy'} on {select_name}"
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
        history=tuple(facts.history),
        thresholds=tuple(
            TrainedThreshold(group, facts.initial.get(group, value), value, facts.frozen_at.get(group)) for group, value in final
        ),
        seconds_per_step=loop.seconds_per_step,
        interrupted=interrupted,
        resumed_from=resumed_from,
    )
