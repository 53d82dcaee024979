"""Operators that multiply by weights and accumulate, from TensorFlow the whole road (L1, L2, L10, L11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from whole_road import ALL, NETWORK, record, take

from tqt_onnx.frontend_onnx import adopt

IMAGE = (7, 6, 4)

Row = tuple[str, Callable[[], Any], tuple[int, ...]]


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape).astype(np.float32)
