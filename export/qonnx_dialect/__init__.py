"""A Q/DQ model with `Quant` nodes in place of its pairs, for every reader of QONNX."""
