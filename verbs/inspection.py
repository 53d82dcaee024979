"""What `inspect` finds: layers, share groups and totals, in a form that tables and JSON take."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ..ir import Quantizer, QuantizerGraph
from ..passes import Function, Island

SCHEMA: Final = "tqt_onnx.inspection/1"
"""Name and version of what `Inspection.to_dict` returns; the number grows when a field goes or changes its meaning."""

Kind = Literal["float", "quantized", "foreign"]
"""A float model, one that `quantize` wrote, or one that is only listed: of another tool or opset."""


@dataclass(frozen=True)
class Layer:
    """Nodes of the lowered graph that end in one quantizer, or one node that has none.

    Attributes:
        name: what to call it: the TensorFlow node of what computes, the node of what moves, the value of what only rounds.
        node: name of its first node.
        nodes: names of all its nodes.
        op_type: operator of the first.
        source: the TensorFlow node it came from, or the empty string.
        topology: what was recognised (`conv+bias+relu6`), or the operator.
        value: name of what it ends in.
        shape: of that value, None for the batch and what is not fixed.
        parameters: elements of its weights, biases and other float constants.
        macs: multiply-accumulates for one example; None where a shape is not known.
        weight: quantizer of its weights, or None.
        bias: quantizer of its bias, or None.
        accumulator: quantizer of its sum in front of the bias (L1), or None.
        output: quantizer of its output, or None where it carries its input's scale or stays float.
        carries: whether it passes its input's scale on.
        group: share group of its output's or, without one, its inputs' scale, where others are in it too (L5).
        accumulator_bits: width that holds every partial sum (X1); None where the weights are not quantized yet, or float.
        certified: whether float32 is exact there; None likewise.
        reason: why it stays float, or the empty string.
    """

    name: str
    node: str
    nodes: tuple[str, ...]
    op_type: str
    source: str
    topology: str
    value: str
    shape: tuple[int | None, ...] | None
    parameters: int
    macs: int | None
    weight: Quantizer | None = None
    bias: Quantizer | None = None
    accumulator: Quantizer | None = None
    output: Quantizer | None = None
    carries: bool = False
    group: str | None = None
    accumulator_bits: int | None = None
    certified: bool | None = None
    reason: str = ""


@dataclass(frozen=True)
class Port:
    """An input or output of the model.

    Attributes:
        name: its name.
        shape: None for what is not fixed, or altogether.
    """

    name: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        kind: `float`: the quantizers are those it would get; `quantized`: their exponents are known; `foreign`: only listed.
        contract: `layer16` or `layer32`, or the empty string of a foreign model.
        opset: of the file.
        producer: tool that wrote the file, or the empty string.
        inputs: what is fed.
        outputs: what comes out.
        layers: in order.
        graph: the quantizers, or None where there is nothing to quantize.
        islands: nodes that stay float.
        tables: functions of one tensor that are tables of 256 entries (L12).
        parameters: elements of all constants, shared ones counted once.
        float_bytes: what they take as float32.
        quantized_bytes: what they take quantized; None of a foreign model.
        remark: why a model is only listed, or what keeps it from being quantized; else the empty string.
    """

    kind: Kind
    contract: str
    opset: int | None
    producer: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: tuple[Layer, ...]
    graph: QuantizerGraph | None
    islands: tuple[Island, ...]
    parameters: int
    float_bytes: int
    quantized_bytes: int | None
    remark: str = ""
    tables: tuple[Function, ...] = ()

    @property
    def quantized(self) -> bool:
        """Whether the exponents are known."""
        return self.kind == "quantized"

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates for one example, or None where a shape is not known."""
        found = [layer.macs for layer in self.layers]
        return None if any(macs is None for macs in found) else sum(macs or 0 for macs in found)

    @property
    def groups(self) -> dict[str, tuple[Quantizer, ...]]:
        """Share groups of more than one member: name -> members."""
        found = {} if self.graph is None else self.graph.groups()
        return {name: tuple(members) for name, members in found.items() if len(members) > 1}

    @property
    def topologies(self) -> dict[str, int]:
        """How many layers there are of each topology, the most frequent first."""
        return dict(Counter(layer.topology for layer in self.layers).most_common())

    @property
    def float_layers(self) -> tuple[Island, ...]:
        """What stays float beyond the Softmax at the end: what `quantize --strict` objects to."""
        return tuple(island for island in self.islands if not island.expected)

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, numbers and strings; `docs/json.md` says what each field means."""
        whole = asdict(self)
        graph = whole.pop("graph")
        totals = {name: whole.pop(name) for name in ("parameters", "float_bytes", "quantized_bytes")}
        groups = {name: [member.value for member in members] for name, members in self.groups.items()}
        found: dict[str, Any] = _lists(
            {
                "schema": SCHEMA,
                **whole,
                "groups": groups,
                "quantizers": [] if graph is None else list(graph["quantizers"]),
                "totals": {**totals, "macs": self.macs, "topologies": self.topologies},
            }
        )
        return found


def _lists(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
