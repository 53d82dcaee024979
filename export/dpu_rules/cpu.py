"""What the toolchain of a DPU gives to the CPU, as far as its documentation says: nothing here is an error."""

from __future__ import annotations

import onnx_ir

from ...ir import attribute, constant, function_regions, name_of
from ..base import Source
from .draft import Draft
from .limits import DPU_SLOPE, ENGINES, KERNEL, SLOPE_BITS, STRIDE
from .positions import Site, fills

_BEHIND = frozenset({"Add", "Conv", "ConvTranspose", "Gemm", "MatMul"})


def on_cpu(source: Source, draft: Draft, sites: tuple[Site, ...]) -> dict[str, str]:
    """Node -> why a DPU does not run it."""
    reasons = {part.node: f"{part.op} is computed in floating point: {part.reason}" for part in source.network.float_parts}
    for region in function_regions(draft.model.graph):
        reasons |= {_name(node): f"{node.op_type} belongs to a function of one tensor" for node in region.nodes}
    for site in sites:
        if site.kind in {"layer", "elementwise"} and site.output is None:
            reasons.setdefault(site.node, f"what {site.op} computes is not rounded to 8 bits")
    for node in draft.nodes:
        reason = _reason(node)
        if reason is not None:
            reasons.setdefault(_name(node), reason)
    return reasons


def _name(node: onnx_ir.Node) -> str:
    return node.name or name_of(node.outputs[0])


def _reason(node: onnx_ir.Node) -> str | None:
    if node.op_type not in ENGINES or node.domain != "":
        return f"no engine is documented for {node.op_type}"
    if node.op_type in {"Conv", "ConvTranspose"}:
        return _convolution(node)
    if node.op_type == "LeakyRelu":
        return _leaky(node)
    if node.op_type == "Clip" and [_bound(node, index) for index in (1, 2)] != [0.0, 6.0]:
        return "a Clip other than relu6"
    if node.op_type == "Pad" and attribute(node, "mode", "constant") != "constant":
        return "a Pad that repeats elements"
    if fills(node):
        return "a Pad with another number than zero"
    return None


def _bound(node: onnx_ir.Node, index: int) -> float | None:
    array = constant(node.inputs[index]) if len(node.inputs) > index else None
    return None if array is None else float(array.item())


def _convolution(node: onnx_ir.Node) -> str | None:
    weight = constant(node.inputs[1])
    if weight is None:
        return "its weights are computed"
    group, kernel = attribute(node, "group", 1), weight.shape[2:]
    strides = attribute(node, "strides", (1,) * len(kernel))
    channels = weight.shape[1] * group if node.op_type == "Conv" else weight.shape[0]
    if group not in (1, channels):
        return f"group {group} of {channels} channels is neither 1 nor depthwise"
    if node.op_type == "ConvTranspose":
        ratios = [size / stride for size, stride in zip(kernel, strides, strict=True)]
        return None if max(ratios) <= KERNEL.most else f"kernel {list(kernel)} is more than {KERNEL.most} strides {list(strides)}"
    if group == 1 and any(KERNEL.excess(size) for size in kernel):
        return f"kernel {list(kernel)} is beyond {KERNEL.most}"
    return f"stride {list(strides)} is beyond {STRIDE.most}" if any(STRIDE.excess(stride) for stride in strides) else None


def _leaky(node: onnx_ir.Node) -> str | None:
    steps = round(attribute(node, "alpha", 0.01) * (1 << SLOPE_BITS))
    above = None if node.inputs[0] is None else node.inputs[0].producer()
    if steps != DPU_SLOPE:
        return f"a leaky relu of {steps}/256; the engine has {DPU_SLOPE}/256"
    return None if above is not None and above.op_type in _BEHIND else "a leaky relu that follows no layer"
