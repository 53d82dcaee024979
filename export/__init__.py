"""Hand-off: one file per target, one row each in `EXPORTERS`."""

from typing import Any, Final

from .base import ChangesModel, Exporter, Feeds, Source
from .c import CExporter
from .dpu import DpuExporter
from .finn import FinnExporter
from .hls4ml import Hls4mlExporter
from .integer import IntegerExporter
from .integers.network import FloatPart, IntegerNetwork, Operation, Port, Step, Tensor
from .integers.reading import Facts, read_network
from .qdq import QdqExporter
from .qonnx import QonnxExporter
from .saved_model import SavedModelExporter
from .tflite import TfliteExporter
from .vectors import VectorsExporter

EXPORTERS: Final[dict[str, Any]] = {
    exporter.name: exporter
    for exporter in (
        QdqExporter,
        IntegerExporter,
        VectorsExporter,
        QonnxExporter,
        Hls4mlExporter,
        CExporter,
        DpuExporter,
        FinnExporter,
        SavedModelExporter,
        TfliteExporter,
    )
}
"""Target -> its exporter, a dataclass whose fields are the target's options."""

__all__ = [
    "EXPORTERS",
    "CExporter",
    "ChangesModel",
    "DpuExporter",
    "Exporter",
    "Facts",
    "Feeds",
    "FinnExporter",
    "FloatPart",
    "IntegerExporter",
    "IntegerNetwork",
    "Operation",
    "Port",
    "QdqExporter",
    "QonnxExporter",
    "SavedModelExporter",
    "Source",
    "Step",
    "Tensor",
    "TfliteExporter",
    "read_network",
]
