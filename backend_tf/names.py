"""Names of ONNX values as names of Keras variables, and back: Keras 3 refuses `/`, TensorFlow most other marks."""

from __future__ import annotations

import re

WEIGHT_PREFIX = "w."
THRESHOLD_PREFIX = "log2_t."
"""The prefixes keep weights and thresholds apart and see to it that a name starts with a letter."""

_MARKED = re.compile(rb"[^A-Za-z0-9_.]")
_ESCAPED = re.compile(rb"-([0-9A-F]{2})")


def escape(name: str) -> str:
    """`name` with every byte but letters, digits, `_` and `.` written as `-XX`, its hexadecimal value."""
    return _MARKED.sub(lambda match: b"-%02X" % match[0][0], name.encode()).decode()


def unescape(name: str) -> str:
    """The name that `escape` was given."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), name.encode()).decode()
