from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes import name_moves
from tqt_onnx.passes.name_moves import NameMoves

IO = "g (float[n,4,6,4] x) => (float[n,c,h,w] y)"
SHUFFLE = "Transpose<perm = [0, 2, 1, 3, 4]>"
LAST, FIRST = "Transpose<perm = [0, 2, 3, 1]>", "Transpose<perm = [0, 3, 1, 2]>"


def constants(**shapes: list[int]) -> dict[str, np.ndarray]:
    return {name: np.array(shape) for name, shape in shapes.items()}


def test_a_channel_shuffle(golden):
    golden(
        NameMoves(),
        f"{IO} {{ t = {LAST}(x) r = Reshape(t, s) u = Transpose<perm = [0, 1, 2, 4, 3]>(r) v = Reshape(u, z) y = {FIRST}(v) }}",
        f"{IO} {{ y = Gather<axis = 1>(x, y__order) }}",
        constants(s=[-1, 6, 4, 2, 2], z=[0, 6, 4, 4]),
        constants(y__order=[0, 2, 1, 3]),
    )


def test_reorg(golden):
    golden(
        NameMoves(),
        f"{IO} {{ t = {LAST}(x) r = Reshape(t, s) u = Transpose<perm = [0, 1, 3, 2, 4, 5]>(r) v = Reshape(u, z) y = {FIRST}(v) }}",
        f"{IO} {{ y = SpaceToDepth<blocksize = 2>(x) }}",
        constants(s=[-1, 3, 2, 2, 2, 4], z=[-1, 3, 2, 16]),
        None,
    )


@pytest.mark.parametrize(
    ("mode", "split", "perm"), [("DCR", [2, 2, 1], [0, 3, 4, 1, 5, 2]), ("CRD", [1, 2, 2], [0, 1, 4, 2, 5, 3])]
)
def test_pixel_shuffle(golden, mode, split, perm):
    wide = "g (float[n,8,3,2] x) => (float[n,c,h,w] y)"
    channels = [2 if length == 1 else length for length in split]
    golden(
        NameMoves(),
        f"{wide} {{ r = Reshape(x, s) u = Transpose<perm = {perm}>(r) y = Reshape(u, z) }}",
        f'{wide} {{ y = DepthToSpace<blocksize = 2, mode = "{mode}">(x) }}',
        constants(s=[-1, *channels, 3, 2], z=[-1, 2, 6, 4]),
        None,
    )


def test_repeated_rows_and_columns(golden):
    plain = '<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
    golden(
        NameMoves(),
        f"{IO} {{ u = Unsqueeze(x, a) t = Tile(u, k) y = Reshape(t, z) }}",
        f"{IO} {{ y = Resize{plain}(x, , y__scales) }}",
        constants(a=[3, 5], k=[1, 1, 1, 2, 1, 3], z=[-1, 4, 12, 12]),
        {"y__scales": np.array([1, 1, 2, 3], np.float32)},
    )


@pytest.mark.parametrize(
    ("body", "arrays"),
    [
        (f"{{ t = {LAST}(x) y = {FIRST}(t) }}", {}),  # sink-transposes' business
        ("{ r = Reshape(x, s) y = Reshape(r, z) }", {"s": [-1, 96], "z": [-1, 4, 4, 6]}),  # no name for it
        ("{ r = Reshape(x, s) q = Neg(r) u = Transpose<perm = [0, 2, 1, 3, 4]>(r) y = Reshape(u, z) p = Add(q, r) }",
         {"s": [-1, 2, 2, 6, 4], "z": [-1, 4, 6, 4]}),  # others read what lies between
        ("{ r = Reshape(x, s) u = Transpose<perm = [1, 0, 2, 3]>(r) y = Reshape(u, z) }", {"s": [2, -1, 6, 4], "z": [-1, 4, 6, 4]}),
    ],
)  # fmt: skip
def test_refusals(untouched, body, arrays):
    untouched(NameMoves(), f"{IO} {body}", constants(**arrays))


@pytest.mark.parametrize(
    "body",
    [f"{{ t = {LAST}(x) u = {FIRST}(t) v = {LAST}(u) y = {FIRST}(v) }}", "{ r = Reshape(x, s) n = Neg(r) y = Reshape(n, s) }"],
)
def test_no_image_is_numbered_where_no_name_can_come_out(untouched, monkeypatch, body):
    monkeypatch.setattr(name_moves, "_travel", None)
    untouched(NameMoves(), f"{IO} {body}", constants(s=[-1, 4, 4, 6]) if "s)" in body else {})


def test_an_image_behind_a_transpose_that_is_the_layout_still_has_its_name(rewritten):
    """The chain begins with the network's own layout; what has a name begins behind it."""
    text = f"g (float[n,6,4,4] x) => (float[n,c,h,w] y) {{ t = {FIRST}(x) r = Reshape(t, s) u = {SHUFFLE}(r) y = Reshape(u, z) }}"
    model = rewritten([NameMoves()], text, constants(s=[-1, 2, 2, 6, 4], z=[-1, 4, 6, 4]))
    assert [node.op_type for node in model.graph] == ["Transpose", "Gather"]
