"""The time budget of tuning, by a clock that only moves when it is told to."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tqt_onnx.calibrate.pace import Pace, Work

LAYERS = {f"l{k}": (Work(1, 32 << k, 64 << k, 8192), Work(1, 32 << k, 64 << k, 2048)) for k in range(6)}


def walk(minutes: float, machine: float, between: float = 0.0) -> tuple[list[str], float]:
    """Layers that were treated in full, and when all was done, on a machine so many times slower than a usual one."""
    now = [100.0]
    pace = Pace(LAYERS, 100 + 60 * minutes, lambda: now[0])
    treated = []
    for name, works in LAYERS.items():
        now[0] += between
        full = pace.allows_full(name)
        work = works[0] if full else works[1]
        seconds = machine * work.seconds(full=full)
        now[0] += seconds
        pace.done(work, seconds, full=full)
        if full:
            treated.append(name)
    return treated, now[0] - 100


def test_full_costs_more_than_quick_and_large_more_than_small() -> None:
    for full, quick in LAYERS.values():
        assert full.seconds(full=True) > 2 * quick.seconds(full=False)
    assert all(small.seconds(full=True) < large.seconds(full=True) for (small, _), (large, _) in pairwise(LAYERS.values()))


@pytest.mark.parametrize("machine", [0.3, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_budget_is_kept_on_fast_and_slow_machines(machine: float, share: float) -> None:
    everything = machine * sum(full.seconds(full=True) for full, _ in LAYERS.values())
    treated, seconds = walk(share * everything / 60, machine)
    assert 0 < len(treated) < len(LAYERS)
    assert seconds <= share * everything
    assert walk(1.5 * everything / 60, machine)[0] == list(LAYERS)


def test_a_budget_that_is_used_up_or_endless() -> None:
    assert walk(0, 1)[0] == []
    assert walk(float("inf"), 1e6)[0] == list(LAYERS)
    assert walk(1, 1, between=100)[0] == []


def test_one_layer_is_late_as_soon_as_the_quick_version_of_the_others_would_be() -> None:
    now = [0.0]
    pace = Pace(LAYERS, 10.0, lambda: now[0])
    rest = sum(quick.seconds(full=False) for name, (_, quick) in LAYERS.items() if name != "l0")
    assert pace.allows_full("l0")
    now[0] = 10 - rest - 0.001
    assert not pace.late()
    now[0] = 10 - rest + 0.001
    assert pace.late()


def test_inputs_in_blocks_cost_what_blocks_cost() -> None:
    narrow, wide = Work(1, 2048, 128, 2048), Work(1, 3 * 2048, 128, 2048)
    assert wide.seconds(full=False) == pytest.approx(3 * narrow.seconds(full=False), rel=0.05)
    assert wide.seconds(full=True) == wide.seconds(full=False)  # neither strengths nor sweeps
