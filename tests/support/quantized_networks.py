"""The fuzzer's random networks as Q/DQ models; those that are refused are left to the caller as None."""

from __future__ import annotations

import onnx_ir
from fuzz_road import quantize_network
from random_networks import Network

from tqt_onnx.ir import DataError, UnsupportedError


def quantized_network(network: Network) -> onnx_ir.Model | None:
    """The network as the fuzzer quantizes it; None where it is refused."""
    try:
        return quantize_network(network)
    except (DataError, UnsupportedError):
        return None
