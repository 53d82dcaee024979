"""What lets onnxruntime run every layer of a Q/DQ model in its integer kernels."""
