"""Closed-form reconstruction of a layer: against brute force on tiny problems, and where data are degenerate."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tqt_onnx.kernels.reconstruct import reconstruct
from tqt_onnx.kernels.ridge import STRENGTHS, Moments, Rows, best_bias, choose_strength, predict, solve
from tqt_onnx.kernels.rounding import Feedback, descend, with_feedback


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def rows(data: np.ndarray, target: np.ndarray, held: int = 0, **bounds: float) -> Rows:
    kept = np.arange(data.shape[1]) < held
    return Rows(data.astype(np.float32), target.astype(np.float32), kept, **bounds)


def random_layer(
    rng: np.random.Generator, groups: int, inputs: int, outputs: int, count: int = 200
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = rng.normal(0.3, 1, (groups, count, inputs)) @ rng.normal(0, 1, (groups, inputs, inputs))
    return data, rng.normal(0, 1, (groups, inputs, outputs)), rng.normal(0, 1, (groups, outputs))


def spread(w: np.ndarray, q: np.ndarray, a: np.ndarray) -> np.ndarray:
    return np.einsum("gko,gkl,glo->go", w - q, a, w - q)


def test_feedback_and_descent_come_close_to_the_best_of_all_integers(rng: np.random.Generator) -> None:
    total = {"best": 0.0, "nearest": 0.0, "feedback": 0.0, "descent": 0.0}
    for _ in range(30):
        root = rng.normal(0, 1, (1, 3, 3))
        a = root @ root.swapaxes(1, 2) + 0.05 * np.eye(3)
        w = rng.normal(0, 1.5, (1, 3, 1))
        best = min(spread(w, np.array(q, float).reshape(1, 3, 1), a)[0, 0] for q in itertools.product(range(-4, 4), repeat=3))
        fed = with_feedback(w, Feedback.of(a), -4, 3)
        swept = descend(fed, a @ w, a, -4, 3)
        for name, q in {"nearest": np.clip(np.rint(w), -4, 3), "feedback": fed, "descent": swept}.items():
            found = spread(w, q, a)[0, 0]
            assert found >= best - 1e-9
            total[name] += found
        assert spread(w, swept, a)[0, 0] <= spread(w, fed, a)[0, 0] + 1e-12
        total["best"] += best
    assert total["feedback"] < 0.8 * total["nearest"]
    assert total["descent"] < 1.3 * total["best"]


@pytest.mark.parametrize("size", [1, 31, 32, 33, 70])
def test_blocks_of_inputs_give_what_one_after_the_other_gives(rng: np.random.Generator, size: int) -> None:
    root = rng.normal(0, 1, (2, size, 2 * size))
    a = root @ root.swapaxes(1, 2)
    w = rng.normal(0, 5, (2, size, 3))
    q, slope = np.clip(np.rint(w), -8, 7), a @ (w - np.clip(np.rint(w), -8, 7))
    for k in range(size):
        moved = np.clip(np.rint(q[:, k] + slope[:, k] / a[:, k, k, None]), -8, 7)
        slope -= a[:, :, k, None] * (moved - q[:, k])[:, None]
        q[:, k] = moved
    assert (descend(np.clip(np.rint(w), -8, 7), a @ w, a, -8, 7) == q).all()


def test_feedback_rounds_to_nearest_where_inputs_are_independent_ties_to_even() -> None:
    w = np.array([[[0.5], [1.5], [-0.5], [-2.5], [300.0], [-300.0]]])
    assert with_feedback(w, Feedback.of(np.eye(6)[None]), -128, 127).reshape(-1).tolist() == [0, 2, 0, -2, 127, -128]


def test_a_layer_on_the_grid_is_found_exactly(rng: np.random.Generator) -> None:
    data, _, bias = random_layer(rng, 3, 5, 4)
    integers = rng.integers(-128, 128, (3, 5, 4)).astype(float)
    integers[0, 0, 0] = -128
    weights = np.ldexp(integers, -6)
    layer = rows(data, predict(rows(data, np.empty((3, 200, 0))), weights, bias))
    found = reconstruct(layer, weights, bias, 8)
    assert found.exponent == -6
    assert (found.integers == integers).all()
    assert found.bias == pytest.approx(bias, abs=1e-4)


def test_a_giant_weight_of_an_input_that_never_varies_costs_no_resolution(rng: np.random.Generator) -> None:
    data, weights, bias = random_layer(rng, 1, 4, 2)
    data[..., 3] = 0.01
    weights[0, 3] = 1000.0
    layer = rows(data, data @ weights + bias[:, None])
    found = reconstruct(layer, weights, bias, 8)
    assert found.exponent < -4  # max|w| would ask for 2^3
    assert found.loss < 1e-3 * layer.target.var()


def test_outputs_that_are_clipped_anyway_do_not_hold_the_scale(rng: np.random.Generator) -> None:
    data, weights, bias = random_layer(rng, 1, 4, 2)
    weights[0, :, 1] *= 100
    bias[0, 1] = -1e5  # behind the relu: always 0
    layer = rows(data, data @ weights + bias[:, None], low=0.0)
    assert reconstruct(layer, weights, bias, 8).loss < 1e-3
    assert reconstruct(layer, weights, bias, 8).exponent < -4


def test_wanted_outputs_follow_where_the_activation_clips() -> None:
    layer = rows(np.zeros((1, 5, 1)), np.array([[[-1.0], [-1.0], [3.0], [7.0], [7.0]]]), low=0.0, high=6.0)
    outputs = np.array([[[-9.0], [2.0], [2.0], [9.0], [5.0]]], np.float32)
    assert layer.wanted(outputs).reshape(-1).tolist() == [-9.0, 0.0, 3.0, 9.0, 6.0]


def test_least_squares_is_that_of_numpy_and_the_pull_keeps_the_weights(rng: np.random.Generator) -> None:
    data, weights, bias = random_layer(rng, 1, 3, 2)
    target = rng.normal(0, 1, (1, 200, 2))
    layer = rows(data, target)
    fitted = solve(layer, Moments(layer, bias=True), weights, bias, 1e-9)
    offset = best_bias(layer, predict(layer, fitted, None))
    expected = np.linalg.lstsq(np.column_stack([data[0], np.ones(200)]), target[0], rcond=None)[0]
    assert fitted[0] == pytest.approx(expected[:3], abs=1e-4)
    assert offset[0] == pytest.approx(expected[3], abs=1e-4)
    kept = solve(layer, Moments(layer, bias=True), weights, bias, 1e9)
    assert kept == pytest.approx(weights, abs=1e-6)


def chosen_of(layer: Rows, weights: np.ndarray, bias: np.ndarray, **options: Any) -> float:
    seen = layer.part(False)
    return choose_strength(seen, layer.part(True), Moments(seen, bias=True), weights, bias, **options)


def test_few_images_choose_a_stronger_pull_than_many(rng: np.random.Generator) -> None:
    weights, bias = rng.normal(0, 1, (1, 40, 1)), np.zeros((1, 1))
    right = weights + rng.normal(0, 0.3, weights.shape)  # what many rows show, and few rows do not

    def chosen(count: int) -> float:
        data = rng.normal(0, 1, (1, count + 4000, 40))
        layer = rows(data, data @ right + rng.normal(0, 3, (1, count + 4000, 1)), held=4000)
        return chosen_of(layer, weights, bias)

    assert chosen(45) > chosen(20000)
    assert chosen_of(rows(np.zeros((1, 5, 40)), np.zeros((1, 5, 1))), weights, bias) in STRENGTHS  # none kept back


def test_once_time_is_up_nothing_more_is_tried(rng: np.random.Generator) -> None:
    data, weights, bias = random_layer(rng, 1, 12, 5)
    right = weights + rng.normal(0, 0.3, weights.shape)
    layer = rows(data, data @ right + bias[:, None], held=40)
    full = reconstruct(layer, weights, bias, 4)
    assert full.in_time
    asked: list[int] = []

    def after(count: int) -> Callable[[], bool]:
        asked.clear()
        return lambda: asked.append(0) or len(asked) > count  # type: ignore[func-returns-value]

    at_once = reconstruct(layer, weights, bias, 4, late=after(0))
    middle = STRENGTHS[len(STRENGTHS) // 2]
    quick = reconstruct(layer, weights, bias, 4, sweeps=0, strength=middle)
    assert not at_once.in_time
    assert len(asked) == 1
    assert (at_once.strength, at_once.loss) == (middle, quick.loss)
    assert (at_once.integers == quick.integers).all()
    losses = [reconstruct(layer, weights, bias, 4, late=after(count)).loss for count in (6, 7, 8, 100)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == full.loss
    assert chosen_of(layer, weights, bias, late=after(1)) == middle


def test_rows_kept_back_are_not_copied_where_they_come_last(rng: np.random.Generator) -> None:
    data = rng.normal(0, 1, (2, 10, 3))
    mixed = Rows(data.astype(np.float32), data.astype(np.float32), np.arange(10) % 5 == 4)
    order = np.argsort(mixed.held, kind="stable")
    last = Rows(mixed.data[:, order], mixed.target[:, order], mixed.held[order])
    for held in (False, True):
        assert (last.part(held).data == mixed.part(held).data).all()
        assert last.part(held).held.tolist() == [held] * (2 if held else 8)
        assert np.shares_memory(last.part(held).data, last.data)
    assert rows(data, data).part(True).data.shape == (2, 0, 3)


def test_without_a_bias_the_means_are_not_taken_out(rng: np.random.Generator) -> None:
    data, weights, _ = random_layer(rng, 1, 3, 1)
    data += 10
    layer = rows(data, data @ weights)
    found = reconstruct(layer, weights, None, 8)
    assert found.bias is None
    assert abs((predict(layer, found.weights, None) - layer.target).mean()) < 0.1


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_constant_data_leave_finite_weights(rng: np.random.Generator, fill: float, count: int) -> None:
    weights, bias = rng.normal(0, 1, (2, 9, 1)), np.zeros((2, 1))
    data = np.full((2, count, 9), fill)
    found = reconstruct(rows(data, data @ weights), weights, bias, 8)
    assert np.isfinite(found.weights).all()
    assert abs(found.weights - weights).max() <= 2.0**found.exponent
    assert found.loss == pytest.approx(0, abs=1e-9)


def test_zero_weights_and_a_lowest_exponent(rng: np.random.Generator) -> None:
    data, weights, bias = random_layer(rng, 1, 3, 2)
    zeros = reconstruct(rows(data, np.zeros((1, 200, 2))), np.zeros((1, 3, 2)), np.zeros((1, 2)), 8)
    assert not zeros.integers.any()
    layer = rows(data, data @ weights + bias[:, None])
    assert reconstruct(layer, weights, bias, 8, lowest_exponent=-2).exponent == -2
    assert reconstruct(layer, weights, bias, 8, lowest_exponent=5).exponent == 5


def test_layers_with_very_many_inputs_are_cut_into_blocks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tqt_onnx.kernels.reconstruct.LARGEST", 32)
    inputs = 67
    data, weights = rng.normal(0, 1, (1, 64, inputs)), rng.normal(0, 1, (1, inputs, 2))
    layer = rows(data, data @ weights)
    found = reconstruct(layer, weights, np.zeros((1, 2)), 4)
    nearest = np.ldexp(np.clip(np.rint(np.ldexp(weights, -found.exponent)), -8, 7), found.exponent)
    assert found.integers.shape == weights.shape
    assert found.loss < 0.9 * layer.loss(nearest, np.zeros((1, 2)))


def test_the_bias_takes_up_the_mean_error_of_what_is_not_clipped() -> None:
    target = np.array([[[-5.0], [1.0], [3.0]]])
    layer = rows(np.zeros((1, 3, 1)), target, low=0.0)
    outputs = np.array([[[-9.0], [0.5], [2.5]]], np.float32)
    assert best_bias(layer, outputs)[0, 0] < best_bias(rows(np.zeros((1, 3, 1)), target), outputs)[0, 0]


def test_the_same_twice(rng: np.random.Generator) -> None:
    data, weights, bias = random_layer(rng, 4, 9, 1)
    layer = rows(data, data @ weights, held=30, low=0.0, high=6.0)
    first, second = (reconstruct(layer, weights, bias, 4) for _ in range(2))
    assert (first.integers == second.integers).all()
    assert first.exponent == second.exponent


def test_many_rows_are_compared_by_evenly_chosen_ones_with_their_targets() -> None:
    data = np.arange(9000.0).reshape(1, 9000, 1)
    few = rows(data, 2 * data, held=3000).few()
    assert few.data.shape == (1, 2048, 1)
    assert (few.data[0, 0, 0], few.data[0, -1, 0]) == (0, 8999)
    assert (few.target == 2 * few.data).all()
    assert (few.held == (few.data[0, :, 0] < 3000)).all()
    small = rows(data[:, :2048], data[:, :2048])
    assert small.few() is small


def test_a_given_strength_is_taken_and_no_sweep_is_the_quick_version(rng: np.random.Generator) -> None:
    data, weights, bias = random_layer(rng, 1, 12, 5)
    layer = rows(data, data @ weights + bias[:, None] + rng.normal(0, 1, (1, 200, 5)), held=40)
    quick = reconstruct(layer, weights, bias, 4, sweeps=0, strength=0.03)
    full = reconstruct(layer, weights, bias, 4, strength=0.03)
    assert quick.strength == full.strength == 0.03
    assert full.loss <= quick.loss


@pytest.mark.parametrize(("groups", "inputs", "outputs", "count"), [(1, 512, 128, 1024), (1, 64, 512, 4096), (128, 9, 1, 4096)])
def test_memory_is_bounded_by_what_the_docstring_says(
    rng: np.random.Generator, groups: int, inputs: int, outputs: int, count: int
) -> None:
    data = rng.normal(0, 1, (groups, count, inputs)).astype(np.float32)
    weights, bias = rng.normal(0, 1, (groups, inputs, outputs)), rng.normal(0, 1, (groups, outputs))
    kept = np.arange(count) >= count - count // 5  # last, as the walk has them
    given = Rows(data, data @ weights.astype(np.float32), kept, 0.0, 6.0)
    stated = given.data.nbytes + 6 * given.target.nbytes + 8 * groups * inputs * (6 * inputs + 9 * outputs)
    tracemalloc.start()
    try:
        reconstruct(given, weights, bias, 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= stated
