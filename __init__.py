"""TensorFlow networks to power-of-two fixed-point ONNX, bit for bit what the hardware computes.

Importing this package costs next to nothing: each verb loads what it needs when it is first used, and only `convert`,
`demo` and `check(engines=[..., "tf"])` load TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .backend_tf.training import Schedule
    from .datasets import Augmentation, open_dataset
    from .ir import DataError, ModelError, TqtOnnxError, UnsupportedError, UsageError, load, save
    from .passes import BitWidths, parse_passes
    from .verbs.calibration_set import calibration_set
    from .verbs.check import check
    from .verbs.convert import convert
    from .verbs.demo import demo
    from .verbs.evaluate import evaluate
    from .verbs.export import export_model
    from .verbs.inspect import inspect
    from .verbs.keras_models import from_keras, to_keras
    from .verbs.presets import preset
    from .verbs.quantize import quantize
    from .verbs.retrain import retrain

__version__: Final = "0.1.0"

_LAZY: Final = {
    "Augmentation": "datasets",
    "BitWidths": "passes",
    "DataError": "ir",
    "ModelError": "ir",
    "Schedule": "backend_tf.training",
    "TqtOnnxError": "ir",
    "UnsupportedError": "ir",
    "UsageError": "ir",
    "calibration_set": "verbs.calibration_set",
    "check": "verbs.check",
    "convert": "verbs.convert",
    "demo": "verbs.demo",
    "evaluate": "verbs.evaluate",
    "export_model": "verbs.export",
    "from_keras": "verbs.keras_models",
    "inspect": "verbs.inspect",
    "load": "ir",
    "open_dataset": "datasets",
    "parse_passes": "passes",
    "preset": "verbs.presets",
    "quantize": "verbs.quantize",
    "retrain": "verbs.retrain",
    "save": "ir",
    "to_keras": "verbs.keras_models",
}
"""Public name -> the module that defines it."""

__all__ = [
    "Augmentation",
    "BitWidths",
    "DataError",
    "ModelError",
    "Schedule",
    "TqtOnnxError",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "calibration_set",
    "check",
    "convert",
    "demo",
    "evaluate",
    "export_model",
    "from_keras",
    "inspect",
    "load",
    "open_dataset",
    "parse_passes",
    "preset",
    "quantize",
    "retrain",
    "save",
    "to_keras",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
