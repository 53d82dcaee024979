"""Rewrites of the graph: optimize, lower, annotate, insert Q/DQ and take it out again."""

from .annotate import BitWidths, annotate
from .base import Pass, run_passes
from .bias_room import weight_floors
from .infer_shapes import InferShapes
from .insert_qdq import insert_qdq
from .islands import Island, islands
from .lower import lower, lowering
from .recipes import PASSES, optimize
from .remove_qdq import remove_qdq

__all__ = [
    "PASSES",
    "BitWidths",
    "InferShapes",
    "Island",
    "Pass",
    "annotate",
    "insert_qdq",
    "islands",
    "lower",
    "lowering",
    "optimize",
    "remove_qdq",
    "run_passes",
    "weight_floors",
]
