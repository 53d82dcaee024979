"""Repair of a statically quantized network from unlabelled images, layer by layer."""
