"""Frozen graph -> ONNX. Only `convert` knows tf2onnx; the rest puts right what it leaves behind."""
