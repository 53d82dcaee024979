"""Terminal output: tables and progress. Rooms that compute never print; what they return is made readable here."""

from .console import make_console
from .progress import Progress, progress_bar
from .table import table
from .tables import (
    accuracy_table,
    certificate_table,
    check_table,
    difference_table,
    engine_verdict,
    float_table,
    inspect_table,
    island_table,
)

__all__ = [
    "Progress",
    "accuracy_table",
    "certificate_table",
    "check_table",
    "difference_table",
    "engine_verdict",
    "float_table",
    "inspect_table",
    "island_table",
    "make_console",
    "progress_bar",
    "table",
]
