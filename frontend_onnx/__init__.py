"""ONNX as a source: a file that another tool wrote, as the passes want it.

model = adopt("net.onnx")           # onnx_ir.Model, opset 21, batch open
original = as_written("net.onnx")   # the file as it is: the reference for the conversion
"""

from .adopt import adopt, as_written

__all__ = ["adopt", "as_written"]
