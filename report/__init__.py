"""Terminal output: tables and progress. Rooms that compute never print; what they return is made readable here."""

from .console import RenderableType, make_console
from .layers import group_table, inspect_table, layer_table, summary_lines
from .noise import noise_table, own_noise_table, tie_table, unmatched_table
from .progress import Progress, progress_bar
from .rounding import output_effect_table, rounding_table
from .table import printable, table
from .tables import (
    accuracy_table,
    certificate_table,
    check_table,
    difference_table,
    engine_verdict,
    float_table,
    function_table,
    island_table,
)
from .training import threshold_table, training_lines, training_table, validation_table
from .tuning import nearness_line, tuned_table

__all__ = [
    "Progress",
    "RenderableType",
    "accuracy_table",
    "certificate_table",
    "check_table",
    "difference_table",
    "engine_verdict",
    "float_table",
    "function_table",
    "group_table",
    "inspect_table",
    "island_table",
    "layer_table",
    "make_console",
    "nearness_line",
    "noise_table",
    "output_effect_table",
    "own_noise_table",
    "printable",
    "progress_bar",
    "rounding_table",
    "summary_lines",
    "table",
    "threshold_table",
    "tie_table",
    "training_lines",
    "training_table",
    "tuned_table",
    "unmatched_table",
    "validation_table",
]
