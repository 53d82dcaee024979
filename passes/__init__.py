"""Rewrites of the graph: optimize, lower, annotate, insert Q/DQ and take it out again."""

from .annotate import BitWidths, annotate
from .base import Pass, run_passes
from .insert_qdq import insert_qdq
from .islands import Island, islands
from .lower import lower, lowering
from .remove_qdq import remove_qdq

__all__ = [
    "BitWidths",
    "Island",
    "Pass",
    "annotate",
    "insert_qdq",
    "islands",
    "lower",
    "lowering",
    "remove_qdq",
    "run_passes",
]
