"""A quantized network as hardware sees it, read from a Q/DQ model."""
