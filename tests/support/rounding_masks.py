"""Which numbers let the gradient of a quantizer through: the mask is on the rounded value, inclusive (T2)."""

from __future__ import annotations

MASKS = [
    (8, True, None, [126.5, 127.0, 127.49, 127.5, 128.0], [1, 1, 1, 0, 0]),  # 127.5 goes to 128, the even one
    (8, True, None, [-128.0, -128.49, -128.5, -128.51, -129.0], [1, 1, 1, 0, 0]),  # -128.5 to -128
    (8, False, None, [-0.49, -0.5, -0.51, 255.49, 255.5], [1, 1, 0, 1, 0]),
    (8, False, 6.0, [191.5, 192.0, 192.49, 192.5, 192.51], [1, 1, 1, 1, 0]),  # relu6 at 2^-5: p' = 192
    (8, False, 6.0, [-0.5, -0.51, 0.0, 255.0, 1e6], [1, 0, 1, 0, 0]),
    (2, True, None, [1.49, 1.5, -2.5, -2.51, 0.0], [1, 0, 1, 0, 1]),
]
"""Bits, sign, limit; numbers in units of the scale, 2^-5; what the mask is for each."""
