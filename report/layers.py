"""The tables of `inspect`: what each layer is and costs, how it is quantized, and who shares a scale."""

from __future__ import annotations

from ..ir import Quantizer
from .shapes import Inspection, Port
from .table import Cell, PlainTable, count, table


def summary_lines(inspection: Inspection) -> list[str]:
    """What kind of model it is, what goes in and comes out; what it costs."""
    kind = {"float": "float model", "quantized": f"quantized model ({inspection.contract})"}.get(inspection.kind, "foreign model")
    origin = f", written by {inspection.producer}" if inspection.kind == "foreign" and inspection.producer else ""
    ports = f"{', '.join(map(_port, inspection.inputs))} -> {', '.join(map(_port, inspection.outputs))}"
    size = _bytes(inspection.float_bytes)
    if inspection.quantized_bytes is not None and inspection.quantized_bytes != inspection.float_bytes:
        size += f" as float, {_bytes(inspection.quantized_bytes)} quantized"
    macs = "an unknown number of" if inspection.macs is None else count(inspection.macs)
    layers = f"{len(inspection.layers)} {'nodes' if inspection.kind == 'foreign' else 'layers'}"
    return [
        f"{kind}, opset {inspection.opset}{origin}: {ports}",
        f"{layers}, {inspection.parameters:,} parameters ({size}), {macs} multiply-accumulates",
    ]


def layer_table(inspection: Inspection) -> PlainTable:
    """Every layer: its topology, what comes out, what it costs; the width of its sums where it is known."""
    columns: tuple[str, ...] = ("#", "layer", "topology", "output", "param.", "MACs", "sum bits")
    rows: list[tuple[Cell, ...]] = [
        (
            number,
            layer.name,
            layer.topology,
            _shape(layer.shape),
            count(layer.parameters),
            count(layer.macs),
            layer.accumulator_bits,
        )
        for number, layer in enumerate(inspection.layers, 1)
    ]
    if all(layer.accumulator_bits is None for layer in inspection.layers):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return table("Layers", columns, rows, elide=("layer",))


def inspect_table(inspection: Inspection) -> PlainTable:
    """Every layer's tensor: the types of its weights, its sum or bias and its output, its share group, why it stays float."""
    groups = {name: index for index, name in enumerate(_spanning(inspection), 1)}
    rows = [
        (
            number,
            layer.value,
            _type(layer.weight),
            _type(layer.accumulator or layer.bias),
            _type(layer.output) or ("carried" if layer.carries and not layer.reason else ""),
            str(groups.get(layer.group or "", "")),
            layer.reason,
        )
        for number, layer in enumerate(inspection.layers, 1)
    ]
    title = f"{'Quantized' if inspection.quantized else 'Would be quantized'} ({inspection.contract})"
    return table(title, ("#", "tensor", "weights", "sum, bias", "output", "group", "note"), rows, elide=("tensor",))


def group_table(inspection: Inspection) -> PlainTable | None:
    """Who shares a scale beyond the sum and bias of one layer (L5); None where nobody does."""
    members = [
        (str(number), member.value, member.role, _type(member))
        for number, group in enumerate(_spanning(inspection).values(), 1)
        for member in group
    ]
    return table("Share groups", ("group", "member", "role", "type"), members, elide=("member",)) if members else None


def _spanning(inspection: Inspection) -> dict[str, list[Quantizer]]:
    """Share groups that layers are in with their outputs or inputs: not a layer's own sum and bias (L1, L3)."""
    named = dict.fromkeys(layer.group for layer in inspection.layers if layer.group is not None)
    return {name: list(inspection.groups[name]) for name in named}


def _type(quantizer: Quantizer | None) -> str:
    """`uint8 2^-4 <=6`: width, scale once decided, real upper bound if any."""
    if quantizer is None:
        return ""
    parts = [f"{'' if quantizer.signed else 'u'}int{quantizer.bits}"]
    if quantizer.exponent is not None:
        parts.append(f"2^{quantizer.exponent}")
    if quantizer.limit is not None:
        parts.append(f"<={quantizer.limit:g}")
    return " ".join(parts)


def _shape(shape: tuple[int | None, ...] | None) -> str:
    """`Nx8x4x4`: the first dimension counts examples, others that are not fixed are `?`."""
    if shape is None:
        return "-"
    return "x".join(("N" if index == 0 else "?") if dim is None else str(dim) for index, dim in enumerate(shape))


def _port(port: Port) -> str:
    return f"{port.name} [{'?' if port.shape is None else _shape(port.shape)}]"


def _bytes(number: int) -> str:
    return (
        f"{number:,} bytes" if number < 10_000 else f"{number / 1e3:,.1f} kB" if number < 10_000_000 else f"{number / 1e6:,.1f} MB"
    )
