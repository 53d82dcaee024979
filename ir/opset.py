"""The one opset this project speaks (O1)."""

from typing import Final

OPSET: Final = 21
"""First opset with int16, uint16, int4 and uint4 QuantizeLinear/DequantizeLinear."""

IR_VERSION: Final = 10
"""Written explicitly: onnx writes a newer one by default than onnxruntime reads."""
