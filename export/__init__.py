"""Hand-off: one file per target, one row each in `EXPORTERS`."""

from typing import Any, Final

from .base import Exporter, Feeds, Source
from .network import FloatPart, IntegerNetwork, Operation, Port, Step, Tensor
from .qdq import QdqExporter
from .reading import Facts, read_network

EXPORTERS: Final[dict[str, Any]] = {exporter.name: exporter for exporter in (QdqExporter,)}
"""Target -> its exporter, a dataclass whose fields are the target's options."""

__all__ = [
    "EXPORTERS",
    "Exporter",
    "Facts",
    "Feeds",
    "FloatPart",
    "IntegerNetwork",
    "Operation",
    "Port",
    "QdqExporter",
    "Source",
    "Step",
    "Tensor",
    "read_network",
]
