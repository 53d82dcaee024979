"""Division by a constant map is multiplication by its reciprocal."""

from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.div_to_mul import DivToMul

IO = "g (float[n,2,2] x) => (float[n,2,2] y)"
MAP = np.array([[2.0, 0.5], [4.0, -3.0]], np.float32)


def test_a_map_is_inverted(golden):
    after = {"c": (1 / MAP.astype(np.float64)).astype(np.float32)}
    golden(DivToMul(), f"{IO} {{ y = Div(x, c) }}", f"{IO} {{ y = Mul(x, c) }}", {"c": MAP}, after)


def test_a_constant_with_another_reader_keeps_its_value(golden):
    after = {"c": MAP, "c_1": (1 / MAP.astype(np.float64)).astype(np.float32)}
    body = "{{ d = {}(x, {}) y = Add(d, c) }}"
    golden(DivToMul(), f"{IO} {body.format('Div', 'c')}", f"{IO} {body.format('Mul', 'c_1')}", {"c": MAP}, after)


@pytest.mark.parametrize(
    ("body", "array"),
    [
        ("y = Div(c, x)", MAP),
        ("y = Div(x, c)", np.float32([[1, 2], [0, 1]])),
        ("y = Div(x, c)", np.float32([[1, 2], [1e-39, 1]])),
    ],
)
def test_what_has_no_finite_reciprocal_stays(untouched, body, array):
    untouched(DivToMul(), f"{IO} {{ {body} }}", {"c": array})
