"""What is on in a step of a training."""

from __future__ import annotations

import pytest

from tqt_onnx.backend_tf.training.phase import MODES, phase_at
from tqt_onnx.backend_tf.training.schedule import Schedule


@pytest.mark.parametrize("mode", MODES)
def test_statistics_move_where_weights_do(mode: str) -> None:
    phases = [phase_at(step, mode, Schedule(steps=8), 4, all_frozen=False) for step in (3, 4)]  # type: ignore[arg-type]
    assert [phase.moving for phase in phases] == [mode != "thresholds", False]
    assert all(phase.weights == (mode != "thresholds") for phase in phases)
    assert all(phase.thresholds == (mode in ("thresholds", "both")) for phase in phases)
    assert all(phase.quantized == (mode != "float") for phase in phases)
