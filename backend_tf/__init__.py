"""The lowered ONNX graph as a trainable Keras model on TensorFlow (R1 to R3)."""

from .files import load_model
from .model import RegeneratedModel
from .regenerate import regenerate

__all__ = ["RegeneratedModel", "load_model", "regenerate"]
