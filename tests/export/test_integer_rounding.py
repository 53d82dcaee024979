"""The rounding of the target `integer`, against a second reading in integers alone: ties, signs, borders, shifts both ways."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from integer_reader import round_and_saturate
from integer_runs import evaluate, given

from tqt_onnx.export import Tensor
from tqt_onnx.export.integer_onnx.graph import F64, I32, Builder, Carried, narrowest, widest
from tqt_onnx.export.integer_onnx.rounding import requantize
from tqt_onnx.ir import UnsupportedError

TYPES = [(bits, signed) for bits in (4, 8, 10, 16) for signed in (True, False)]
SHIFTS = (*range(-20, 33), 40, 52, 53, 54, 61, 62, 63, 100, 200)


def tensor(name: str, bits: int, signed: bool, lower: int | None = None, upper: int | None = None) -> Tensor:
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    lower, upper = least if lower is None else lower, most if upper is None else upper
    return Tensor(name, name, "computed", None, None, bits, signed, 0, lower, upper, (None,))


def near(shift: int, bound: int) -> np.ndarray:
    """Integers of magnitude up to `bound` around zero, the bounds, every tie near them and the saturation of all types."""
    unit, half = 1 << min(max(shift, 0), 60), 1 << min(max(shift - 1, 0), 60)
    places = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536]
    middles = [bound, bound - 1, bound - half, *(place * unit for place in places), *(place * unit + half for place in places)]
    found = {sign * (middle + off) for middle in middles for off in (-2, -1, 0, 1, 2) for sign in (-1, 1)}
    drawn = np.random.default_rng(shift + 99).integers(-bound, bound, 200, endpoint=True)
    return np.array(sorted({value for value in found if abs(value) <= bound} | set(drawn.tolist())), np.int64)


@pytest.mark.parametrize("bound", [(1 << 24), (1 << 24) + 1, (1 << 31) - 1, 1 << 53], ids=["2^24", "2^24+1", "int32", "2^53"])
@pytest.mark.parametrize(("bits", "signed"), TYPES)
def test_every_integer_is_rounded_as_by_shifts(bits: int, signed: bool, bound: int) -> None:
    builder, feeds, outputs, expected = Builder(set()), {}, {}, {}
    dtype = widest(-bound, bound, "")
    for shift in SHIFTS:
        values = near(shift, bound)
        name = f"x{shift}"
        x = given(builder, name, values.astype(dtype.numpy()), -bound, bound)
        feeds[name] = values.astype(dtype.numpy())
        wanted = tensor(f"y{shift}", bits, signed)
        outputs[wanted.name] = requantize(builder, x, shift, wanted)
        expected[wanted.name] = round_and_saturate(values, shift, wanted.lower, wanted.upper)
    for found in evaluate(builder, outputs, feeds):
        for name, integers in expected.items():
            np.testing.assert_array_equal(found[name], integers, err_msg=name)
            assert found[name].dtype == (np.int32 if bits > 8 else np.int8 if signed else np.uint8)


@pytest.mark.parametrize("bound", [200, 1 << 20, 1 << 30])
@pytest.mark.parametrize(("lower", "upper"), [(0, 96), (-5, 6), (0, 127), (-128, 0)])
def test_a_narrower_range_holds_whatever_the_shift(lower: int, upper: int, bound: int) -> None:
    for shift in (-9, -1, 0, 1, 5, 12):
        builder, values = Builder(set()), near(shift, bound).astype(np.int32)
        x = given(builder, "x", values, -bound, bound)
        wanted = tensor("y", 8, True, lower, upper)
        for found in evaluate(builder, {"y": requantize(builder, x, shift, wanted)}, {"x": values}):
            np.testing.assert_array_equal(found["y"], round_and_saturate(values.astype(np.int64), shift, lower, upper))


def test_float32_is_used_up_to_2_24_and_not_beyond() -> None:
    """One more is where float32 first drops an integer: rounding it would be off at a tie."""
    for bound, kernel in ((1 << 24, "QuantizeLinear"), ((1 << 24) + 1, "Round")):
        builder = Builder(set())
        requantize(builder, given(builder, "x", np.zeros(3, np.int32), -bound, bound), 4, tensor("y", 8, True))
        assert kernel in {node.op_type for node in builder.graph}


def test_what_no_type_holds_is_refused() -> None:
    assert widest(0, 1 << 53, "a") == F64
    assert widest(-(1 << 31) + 1, (1 << 31) - 1, "a") == I32
    for low, high in ((0, (1 << 53) + 1), (-(1 << 53) - 1, 0)):
        with pytest.raises(UnsupportedError, match=r"target integer: layer 'a': .* beyond 2\^53.*Received: 9007199254740993"):
            narrowest(low, high, "layer 'a'")


def test_types_follow_from_ranges() -> None:
    ranges = itertools.product((-129, -128, 0), (127, 128, 255, 256))
    names = [narrowest(low, high, "").name for low, high in ranges]
    assert names == ["INT32"] * 4 + ["INT8", *["INT32"] * 3] + ["UINT8"] * 3 + ["INT32"]
    assert Carried("x", (), -5, 3).magnitude == 5
