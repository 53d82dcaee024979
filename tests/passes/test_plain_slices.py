from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.plain_slices import PlainSlices

IO = "g (float[n,3,8] x) => (float[b,c,h] y)"
END = 2**31 - 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (([0, 0, 2], [END, END, 7]), ([2], [7], [2])),
        (([2, 0, 0], [-1, 10**9, 2**63 - 1], [-1, 0, 1]), ([2], [-1], [2])),
        (([5, 0], [-END, 9], [2, 1], [-2, 1]), ([5], [-END], [2], [-2])),
        (([-8, 1], [8, 3], [2, 1]), ([1], [3], [1])),
    ],
)
def test_only_the_axes_that_are_cut(golden, before, after):
    given = {name: np.array(numbers) for name, numbers in zip("seat", before, strict=False)}
    left = {name: np.array(numbers) for name, numbers in zip(["s", "e", "a", "t"], after, strict=False)}
    names = ", ".join(given)
    if "a" not in given:
        left["y__axes"] = left.pop("a")
    golden(PlainSlices(), f"{IO} {{ y = Slice(x, {names}) }}", f"{IO} {{ y = Slice(x, {', '.join(_order(left))}) }}", given, left)


def _order(names: dict[str, np.ndarray]) -> list[str]:
    return sorted(names, key=["s", "e", "a", "y__axes", "t"].index)


def test_what_cuts_nothing_goes(golden):
    constants = {"s": np.array([0, 0]), "e": np.array([END, 3]), "a": np.array([0, 1])}
    golden(PlainSlices(), f"{IO} {{ r = Relu(x) y = Slice(r, s, e, a) }}", f"{IO} {{ y = Relu(x) }}", constants, None)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 5), (1, END), (-1, END)],
)
def test_a_cut_of_the_batch_stays(untouched, start, end):
    constants = {"s": np.array([start]), "e": np.array([end]), "a": np.array([0])}
    untouched(PlainSlices(), f"{IO} {{ y = Slice(x, s, e, a) }}", constants)


def test_computed_bounds_stay(untouched):
    untouched(PlainSlices(), "g (float[n,8] x, int64[1] s, int64[1] e) => (float[b,h] y) { y = Slice(x, s, e) }")
