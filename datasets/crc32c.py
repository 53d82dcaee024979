"""CRC-32C (Castagnoli) of bytes, as TFRecord files carry it.

A CRC is linear over bits: the data is cut into equal lanes that run side by side as a NumPy vector, and the results are joined
by the matrix that stands for "a lane's length of zeros". That matrix comes out of 32 further lanes, one for each bit of the state.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_POLYNOMIAL: Final = 0x82F63B78
_LANES: Final = 1024
_SMALL: Final = 2048
"""Bytes below which the plain loop is faster."""


def _table() -> Words:
    state = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        state = np.where(state & 1, (state >> 1) ^ np.uint32(_POLYNOMIAL), state >> 1)
    return state


_TABLE: Final = _table()
_LIST: Final[list[int]] = _TABLE.tolist()


def crc32c(data: bytes) -> int:
    """The checksum of the data."""
    if len(data) >= _SMALL:
        return _vectorized(data)
    state = 0xFFFFFFFF
    for byte in data:
        state = _LIST[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The form stored in TFRecord files: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _vectorized(data: bytes) -> int:
    length = -(-len(data) // _LANES)
    lanes = np.zeros((_LANES, length), np.uint8)
    flat = lanes.reshape(-1)
    start = flat.size - len(data)  # zeros in front leave a state of zero as it is
    flat[start:] = np.frombuffer(data, np.uint8)
    flat[start : start + 4] ^= 0xFF  # the same as beginning with a state of ones
    state = np.zeros(_LANES + 32, np.uint32)
    state[_LANES:] = np.uint32(1) << np.arange(32, dtype=np.uint32)
    columns = np.zeros((length, _LANES + 32), np.uint8)
    columns[:, :_LANES] = lanes.T
    for column in columns:
        state = _TABLE[(state ^ column) & 0xFF] ^ (state >> 8)
    sums, shift = state[:_LANES], state[_LANES:]
    while len(sums) > 1:
        sums = _apply(shift, sums[0::2]) ^ sums[1::2]
        shift = _apply(shift, shift)  # twice as many zeros
    return int(sums[0]) ^ 0xFFFFFFFF


def _apply(matrix: Words, vectors: Words) -> Words:
    """Matrix (its 32 columns) times vectors, over bits."""
    bits = (vectors[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    result: Words = np.bitwise_xor.reduce(bits * matrix, axis=1)
    return result
