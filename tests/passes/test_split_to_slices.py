from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.split_to_slices import SplitToSlices

IO = "g (float[n,5,2] x) => (float[n,b,2] y, float[n,c,2] z)"


def slices(**bounds: tuple[int, int]) -> dict[str, np.ndarray]:
    """The constants of Slices on axis 1, by the name of their outputs."""
    numbers = {name: {"start": start, "end": end, "axis": 1} for name, (start, end) in bounds.items()}
    return {f"{name}__{what}": np.array([number]) for name, row in numbers.items() for what, number in row.items()}


def cut(name: str) -> str:
    return f"Slice(x, {name}__start, {name}__end, {name}__axis)"


def test_given_sizes(golden):
    golden(
        SplitToSlices(),
        f"{IO} {{ y, z = Split<axis = -2>(x, s) }}",
        f"{IO} {{ y = {cut('y')} z = {cut('z')} }}",
        {"s": np.array([1, 4])},
        slices(y=(0, 1), z=(1, 5)),
    )


def test_equal_parts_of_which_the_last_is_shorter(golden):
    golden(
        SplitToSlices(),
        f"{IO} {{ y, u, z = Split<axis = 1, num_outputs = 3>(x) }}",
        f"{IO} {{ y = {cut('y')} z = {cut('z')} }}",
        None,
        slices(y=(0, 2), z=(4, 5)),
    )


def test_one_part_that_is_everything(golden):
    one = "g (float[n,5,2] x) => (float[n,5,2] y)"
    golden(SplitToSlices(), f"{one} {{ y = Split<axis = 1>(x, s) }}", f"{one} {{ y = Identity(x) }}", {"s": np.array([5])}, None)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[5,2] x, int64[2] s) => (float[b,2] y, float[c,2] z) { y, z = Split<axis = 0>(x, s) }",
        "g (float[n,2] x) => (float[b,2] y, float[c,2] z) { y, z = Split<axis = 0, num_outputs = 2>(x) }",
    ],
)
def test_refusals(untouched, text):
    untouched(SplitToSlices(), text)
