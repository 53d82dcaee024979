"""What a frozen graph may not hold between its inputs and outputs: each refusal names the node and says what would do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from tensorflow.python.framework import op_def_registry

from ...ir import ModelError, TqtOnnxError, UnsupportedError
from ..nodes import PLACEHOLDERS, Nodes, data_inputs, index_of, node_of
from ..rewrites.static_values import SMALLEST_BUDGET, Evaluation, byte_budget, declared_bytes
from .ends import QUEUES
from .outside_ops import acts_outside


@dataclass(frozen=True)
class _Refusal:
    """A kind of node and what is said about it; `{op}` and `{name}` are the first such node's, `{count}` is how many."""

    matches: Callable[[Any], bool]
    error: type[TqtOnnxError]
    text: str


def _one_of(*ops: str) -> Callable[[Any], bool]:
    return lambda node: node.op in ops


_VARIABLES: Final = ("Variable", "VariableV2", "AutoReloadVariable", "TemporaryVariable", "VarHandleOp")
_VARIABLE_READERS: Final = ("VarIsInitializedOp", "ReadVariableOp", "ResourceGather", "HashTable", "HashTableV2")
_FILES: Final = ("DecodeJpeg", "DecodePng", "DecodeImage", "DecodeBmp", "DecodeGif", "DecodeRaw", "DecodePaddedRaw")
_RECORDS: Final = ("DecodeAndCropJpeg", "ParseExample", "ParseExampleV2", "ParseSingleExample", "ReadFile", "ReaderReadV2")

_RANDOM: Final = ("Random", "StatelessRandom", "Stateful", "StatelessTruncated", "TruncatedNormal", "Multinomial")

_REFUSALS: Final = (
    _Refusal(
        _one_of(*_VARIABLES, *_VARIABLE_READERS),
        ModelError,
        "is not frozen: it reads {count} variables, the first is {name!r}; "
        "a graph whose variables have been turned into constants is expected",
    ),
    _Refusal(
        _one_of(*QUEUES, *_FILES, *_RECORDS),
        ModelError,
        "{op} {name!r} reads the data itself; name the tensor of float images behind it as the input. Received: inputs {inputs}",
    ),
    _Refusal(
        _one_of("While", "StatelessWhile", "Enter", "RefEnter", "Exit", "RefExit", "NextIteration", "LoopCond", "Loop"),
        UnsupportedError,
        "{op} {name!r} is a loop; a network without control flow is expected, or inputs and outputs that leave it out",
    ),
    _Refusal(
        _one_of("Switch", "RefSwitch", "Merge", "RefMerge", "If", "StatelessIf", "Case", "StatelessCase"),
        UnsupportedError,
        "{op} {name!r} is a branch that depends on the data; a network without control flow is expected",
    ),
    _Refusal(
        lambda node: node.op.startswith(("Quantized", "_MklQuantized", "Requantiz", "UniformQuant")) or node.op == "QuantizeV2",
        UnsupportedError,
        "{op} {name!r}: the graph is quantized already, by a tool that computes ranges at run time and rounds another way; "
        "the float graph it was made from is expected, or one with FakeQuant nodes, whose ranges are taken over",
    ),
    _Refusal(
        _one_of("Dequantize", "QuantizeDownAndShrinkRange", "UniformDequantize"),
        UnsupportedError,
        "{op} {name!r} decodes what is no constant: the graph is quantized already; the float graph it was made from is expected",
    ),
    _Refusal(
        lambda node: node.op.startswith(_RANDOM) and node.op != "StatefulPartitionedCall",
        UnsupportedError,
        "{op} {name!r} draws random numbers, and is not part of dropout; a network that gives the same answer twice is expected",
    ),
    _Refusal(
        acts_outside,
        UnsupportedError,
        "{op} {name!r} reaches outside the graph (files, devices, other programs) or keeps a state, and nothing in a model file "
        "is let do that; inputs and outputs that leave it out are expected",
    ),
)
"""In the order they are asked."""


def check_references(where: str, nodes: Nodes) -> None:
    """Every tensor read must be there, as many as the operator asks for, and nothing computed from itself, other than by a loop."""
    for node in nodes.values():
        for name in node.input:
            if node_of(name) not in nodes:
                raise ModelError(f"{where}: truncated: node {node.name!r} reads {name!r}, which is not in the file")
            try:
                index_of(name)
            except ModelError as error:
                raise ModelError(f"{where}: node {node.name!r}: {error}") from None
        fewest, given = _fewest_inputs(node.op), data_inputs(node)
        if len(given) < fewest:
            raise ModelError(f"{where}: node {node.name!r}: {node.op} reads {fewest} tensors or more. Received: {given}")
    _check_circles(where, nodes)


@cache
def _fewest_inputs(op: str) -> int:
    """How many tensors an operator reads at least: one for each input that is not a list."""
    definition = op_def_registry.get(op)
    arguments = () if definition is None else definition.input_arg
    return sum(not argument.number_attr and not argument.type_list_attr for argument in arguments)


def _check_circles(where: str, nodes: Nodes) -> None:
    """Takes nodes away that wait for nothing until none is left."""
    waits = {
        name: {node_of(read) for read in node.input if nodes[node_of(read)].op not in ("NextIteration", "RefNextIteration")}
        for name, node in nodes.items()
    }
    readers: dict[str, list[str]] = {}
    for name, reads in waits.items():
        for read in reads:
            readers.setdefault(read, []).append(name)
    counts = {name: len(reads) for name, reads in waits.items()}
    ready = [name for name, count in counts.items() if count == 0]
    while ready:
        name = ready.pop()
        del counts[name]
        for reader in readers.get(name, ()):
            counts[reader] -= 1
            if counts[reader] == 0:
                ready.append(reader)
    if counts:
        raise ModelError(
            f"{where}: a graph without circles is expected. Received: node {next(iter(counts))!r}, computed from itself"
        )


def check_ends(where: str, kept: set[str], starts: Iterable[str], ends: Iterable[str]) -> None:
    """Each input must matter, and be no output."""
    for start in starts:
        if node_of(start) not in kept:
            raise ModelError(f"{where}: no output depends on input {start!r}; outputs: {', '.join(ends)}")
        if start in ends:
            raise ModelError(f"{where}: {start!r} cannot be input and output at once")


def check_kept(where: str, nodes: Nodes, inner: Iterable[str], starts: Iterable[str], library: Any) -> None:
    """Refuses what cannot be run as it is.

    Args:
        where: for messages.
        nodes: the graph.
        inner: names of the nodes that stay, those at the inputs excluded.
        starts: the inputs.
        library: functions of the graph.

    Raises:
        ModelError: not frozen, or it depends on something that is no input.
        UnsupportedError: control flow, quantized or random operators, batch norms in training mode, operators that TensorFlow
            does not know.
    """
    names = list(inner)
    found = [nodes[name] for name in names]
    inputs = ", ".join(starts)
    for refusal in _REFUSALS:
        matching = [node for node in found if refusal.matches(node)]
        if matching:
            text = refusal.text.format(op=matching[0].op, name=matching[0].name, count=len(matching), inputs=inputs)
            raise refusal.error(f"{where}: {text}")
    functions = {function.signature.name for function in library.function}
    for node in found:
        if node.op in PLACEHOLDERS and node.op != "PlaceholderWithDefault":
            raise ModelError(f"{where}: the outputs also depend on placeholder {node.name!r}. Received: inputs {inputs}")
        if op_def_registry.get(node.op) is None and node.op not in functions:
            raise UnsupportedError(f"{where}: TensorFlow has no operator {node.op!r} (node {node.name!r})")
        if node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b:
            raise UnsupportedError(
                f"{where}: batch norm {node.name!r} is in training mode, it normalizes by the statistics of each batch; "
                "a graph frozen for inference is expected. Received: is_training=True"
            )
    _check_control(where, nodes, names)


def check_sizes(where: str, nodes: Nodes, kept: set[str], starts: Iterable[str]) -> None:
    """Constants that a small file asks for without holding them: a Fill of terabytes.

    Raises:
        ModelError: a constant part of the graph unpacks to much more than the file holds.
    """
    limit = byte_budget(nodes, kept)
    start_nodes = {node_of(start) for start in starts}
    declared = {name: declared_bytes(nodes[name]) for name in kept if nodes[name].op == "Const"}
    large = dict(declared) if sum(declared.values()) > limit else {}
    if not large:
        large = Evaluation(nodes, kept - start_nodes, start_nodes).too_large
    for name in sorted(large, key=lambda one: -large[one])[:1]:
        raise ModelError(
            f"{where}: {nodes[name].op} {name!r} makes a constant out of next to nothing; at most {limit} bytes are computed, "
            f"{SMALLEST_BUDGET} or in proportion to the weights. Received: {large[name]} bytes"
        )


def _check_control(where: str, nodes: Nodes, names: Iterable[str]) -> None:
    """A control edge orders side effects, of which there are none here, unless it comes out of a branch that may be dead."""
    if not any(node.op in ("Switch", "RefSwitch") for node in nodes.values()):
        return
    undecided: set[str] = set()
    readers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for read in {node_of(tensor) for tensor in node.input}:
            readers.setdefault(read, []).append(name)
    pending = [name for name, node in nodes.items() if node.op in ("Switch", "RefSwitch")]
    while pending:
        name = pending.pop()
        if name not in undecided and nodes[name].op not in ("Merge", "RefMerge"):
            undecided.add(name)
            pending.extend(readers.get(name, ()))
    for name in names:
        for read in nodes[name].input:
            if read.startswith("^") and node_of(read) in undecided:
                raise UnsupportedError(
                    f"{where}: node {name!r} waits for {node_of(read)!r}, which is inside a branch that depends on the data; "
                    "a network without control flow is expected"
                )
