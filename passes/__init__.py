"""Rewrites of the graph: optimize, lower, annotate, insert Q/DQ and take it out again."""

from .annotate import BitWidths, annotate
from .base import Pass, run_passes
from .bias_room import weight_floors
from .fix_input_shape import FixInputShape
from .functions import Function, functions
from .infer_shapes import InferShapes
from .insert_qdq import insert_qdq
from .islands import Island, islands
from .language import ALIASES, describe, options_of, parse_passes
from .lower import lower, lowering
from .lowered import refuse_unlowered
from .optimization import OPTIMIZE, OPTIMIZE_KEEP_BATCH_NORM
from .recipes import PASSES, RECIPES, optimize
from .recorded_ranges import recorded_thresholds
from .remove_qdq import remove_qdq
from .remove_training_nodes import RemoveTrainingNodes

__all__ = [
    "ALIASES",
    "OPTIMIZE",
    "OPTIMIZE_KEEP_BATCH_NORM",
    "PASSES",
    "RECIPES",
    "BitWidths",
    "FixInputShape",
    "Function",
    "InferShapes",
    "Island",
    "Pass",
    "RemoveTrainingNodes",
    "annotate",
    "describe",
    "functions",
    "insert_qdq",
    "islands",
    "lower",
    "lowering",
    "optimize",
    "options_of",
    "parse_passes",
    "recorded_thresholds",
    "refuse_unlowered",
    "remove_qdq",
    "run_passes",
    "weight_floors",
]
