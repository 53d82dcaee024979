from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.expand_to_tile import ExpandToTile

IO = "g (float[n,1,4,1] x) => (float[n,c,h,w] y)"
TILE = f"{IO} {{ y = Tile(x, y__repeats) }}"
REPEATS = {"y__repeats": np.array([1, 3, 1, 2])}


@pytest.mark.parametrize("shape", [[1, 3, 4, 2], [3, 1, 2], [1, 3, 1, 2]])
def test_a_constant_shape(golden, shape):
    golden(ExpandToTile(), f"{IO} {{ y = Expand(x, s) }}", TILE, {"s": np.array(shape)}, REPEATS)


def test_a_shape_that_begins_with_the_batch(golden):
    golden(
        ExpandToTile(),
        f"{IO} {{ f = Shape<start = 0, end = 1>(x) t = Concat<axis = 0>(f, r) y = Expand(x, t) }}",
        TILE,
        {"r": np.array([3, 4, 2])},
        REPEATS,
    )


def test_a_tile_of_everything_once_goes(golden):
    golden(ExpandToTile(), f"{IO} {{ r = Relu(x) y = Tile(r, k) }}", f"{IO} {{ y = Relu(x) }}", {"k": np.ones(4, np.int64)}, None)


@pytest.mark.parametrize("shape", [[2, 1, 1, 4, 1], [5, 1, 1, 1]])
def test_refusals(untouched, shape):
    """An axis more, and a batch made longer."""
    rank = ",".join("abcde"[: len(shape)])
    text = f"g (float[n,1,4,1] x) => (float[{rank}] y) {{ y = Expand(x, s) }}"
    untouched(ExpandToTile(), text, {"s": np.array(shape)})
