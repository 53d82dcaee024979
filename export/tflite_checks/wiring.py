"""Where a tensor comes from: which operators that round it can hold numbers of, and the bounds that are put on them on the way.

The same question is asked of the network and of the file. What moves and selects is passed through; what the answers have in
common is then the wiring, the activations and the bounds, whatever the converter joined or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np

from ..integers.network import IntegerNetwork, Operation, Step, Tensor

Origin = tuple[object, tuple[float, ...], tuple[float, ...]]
"""Index of an operator of the file or name of an input; lower bounds; upper bounds. In real numbers: several where a constant of
several numbers bounds them."""

Origins = frozenset[Origin]
Operators = list[Mapping[str, Any]]

_INFINITE: Final = float("inf")
_UNBOUNDED: Final = (-_INFINITE, _INFINITE)
_NO_EDGES: Final = ((-_INFINITE,), (_INFINITE,))
_SIX: Final = 6.0
_ACTIVATIONS: Final = {0: _UNBOUNDED, 1: (0.0, _INFINITE), 2: (-1.0, 1.0), 3: (0.0, _SIX)}
"""`fusedActivationFunction`: none, relu, relu_n1_to_1, relu6."""
_RECTIFIERS: Final = {"RELU": (0.0, _INFINITE), "RELU6": (0.0, _SIX)}


def grid(tensor: Mapping[str, Any]) -> tuple[tuple[float, ...], int]:
    """Scales and zero point of a tensor of the file."""
    return tuple(tensor["scales"].tolist()), tensor["zero_point"]


def reals(tensor: Mapping[str, Any]) -> tuple[float, ...]:
    """The different numbers of a constant of the file."""
    return _different((np.asarray(tensor["constant"], np.float64) - tensor["zero_point"]) * tensor["scales"][0])


def network_input(index: int) -> str:
    """What an input is called among origins; `backend_tf.saved_model` calls its placeholder so."""
    return f"input_{index}"


class FileWiring:
    """Origins of the tensors of a file.

    Args:
        operators: of the file.
        selecting: those that move and select; behind any other is an end of the way.
    """

    def __init__(self, operators: Iterable[Mapping[str, Any]], selecting: frozenset[str]) -> None:
        self._makers = {
            tensor["index"]: (index, operator) for index, operator in enumerate(operators) for tensor in operator["outputs"]
        }
        self._selecting = selecting

    def of(self, tensor: Mapping[str, Any], found: Iterable[int]) -> Origins:
        """Origins of an int8 tensor; none of a constant.

        Args:
            tensor: of the file.
            found: operators that are steps, whatever they are called.
        """
        return self._of(tensor, frozenset(found), {})

    def _of(self, tensor: Mapping[str, Any], found: frozenset[int], known: dict[int, Origins]) -> Origins:
        if tensor["constant"] is not None:
            return frozenset()
        key = tensor["index"]
        if key not in known:
            known[key] = self._made(tensor, found, known)
        return known[key]

    def _made(self, tensor: Mapping[str, Any], found: frozenset[int], known: dict[int, Origins]) -> Origins:
        if tensor["index"] not in self._makers:
            return frozenset({(tensor["name"].split(":")[0], *_type_bounds(tensor))})
        index, operator = self._makers[tensor["index"]]
        op, inputs = operator["op"], operator["inputs"]
        if op == "QUANTIZE" and inputs[0]["type"] == "float32":
            low, high = _type_bounds(tensor)
            return frozenset((source, low, high) for source, _, _ in self._of(_first(self._makers, inputs[0]), found, known))
        if index in found or op not in self._selecting:
            low, high = _type_bounds(tensor)
            return bounded({(index, low, high)}, *_activation(operator))
        through: Origins = frozenset().union(
            *(self._of(one, found, known) for one in inputs if one is not None and one["type"] == tensor["type"])
        )
        if op in {"MAXIMUM", "MINIMUM"}:
            for one in inputs:
                if one["constant"] is not None:
                    through = limited(through, max if op == "MAXIMUM" else min, reals(one))
        return bounded(through, *(_rounded(edge, tensor) for edge in _RECTIFIERS.get(op, _UNBOUNDED)))

    def position(self, tensor: Mapping[str, Any]) -> tuple[Mapping[str, Any], float, int] | None:
        """What the position in a table is computed from: the int8 tensor, its factor, and what is taken off; None if otherwise."""
        factor, first = 1.0, 0
        while tensor["type"] != "int8":
            if tensor["index"] not in self._makers:
                return None
            operator = self._makers[tensor["index"]][1]
            constants = [one["constant"] for one in operator["inputs"][1:] if one is not None]
            if operator["op"] in {"MUL", "SUB"} and (len(constants) != 1 or constants[0] is None or constants[0].size != 1):
                return None
            if operator["op"] == "MUL":
                factor *= float(constants[0].item())
            elif operator["op"] == "SUB":
                first += int(constants[0].item())
            elif operator["op"] not in {"CAST", "DEQUANTIZE"} | self._selecting:
                return None
            tensor = operator["inputs"][0]
        return tensor, factor, first


class NetworkWiring:
    """Origins of the tensors of a network; `found` says which operator of the file a step became, and grows meanwhile."""

    def __init__(self, network: IntegerNetwork, found: Mapping[str, int]) -> None:
        self._tensors = network.tensors
        self._steps = {step.output: step for step in network.steps}
        self._inputs = {port.tensor: network_input(index) for index, port in enumerate(network.inputs)}
        self._found = found
        self._known: dict[str, Origins] = {}

    def of(self, name: str) -> Origins:
        """Origins of a tensor of the network whose steps were looked for; none of a constant."""
        if name not in self._known:
            self._known[name] = self._made(self._tensors[name])
        return self._known[name]

    def _made(self, tensor: Tensor) -> Origins:
        if tensor.integers is not None:
            return frozenset()
        edges = (tensor.lower * 2.0**tensor.exponent, tensor.upper * 2.0**tensor.exponent)
        if tensor.name not in self._steps:
            return bounded({(self._inputs.get(tensor.name, tensor.name), *_NO_EDGES)}, *edges)
        step = self._steps[tensor.name]
        if tensor.name not in self._found:
            through = self.inside(step, step.result)
            return bounded(((source, _rounding(low, tensor), _rounding(high, tensor)) for source, low, high in through), *edges)
        made = bounded({(self._found[tensor.name], *_NO_EDGES)}, *edges)
        for operation in step.operations:
            made = bounded(made, *(_on_grid(edge, tensor) for edge in _bounds(operation)))
        return made

    def inside(self, step: Step, name: str) -> Origins:
        """Origins of what an operation of a step reads or computes, where nothing in front of it computes."""
        makers = {operation.output: operation for operation in step.operations}
        if name not in makers:
            return self.of(name)
        operation = makers[name]
        through: Origins = frozenset().union(*(self.inside(step, read) for read in operation.inputs))
        if operation.op in {"Max", "Min"}:
            for read in operation.inputs:
                constant = self._constant(makers, read)
                if constant is not None and constant.integers is not None:
                    numbers = _different(constant.integers * 2.0**constant.exponent)
                    through = limited(through, max if operation.op == "Max" else min, numbers)
        return bounded(through, *_bounds(operation))

    def _constant(self, makers: Mapping[str, Operation], name: str) -> Tensor | None:
        while name in makers:
            name = makers[name].inputs[0]
        while name in self._steps and self._tensors[name].integers is None:
            name = self._steps[name].reads[0]
        return None if self._tensors[name].integers is None else self._tensors[name]


def bounded(origins: Iterable[Origin], low: float, high: float) -> Origins:
    """Origins with bounds put on them: the lower one first."""
    return limited(limited(origins, max, (low,)), min, (high,))


def limited(origins: Iterable[Origin], nearer: Callable[..., float], numbers: Iterable[float]) -> Origins:
    """Origins behind a maximum or minimum with constants."""
    edges = tuple(numbers)

    def behind(bounds: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted({nearer(bound, edge) for bound in bounds for edge in edges}))

    return frozenset((source, behind(low), behind(high)) for source, low, high in origins)


def _bounds(operation: Operation) -> tuple[float, float]:
    """What a rectifier or Clip bounds, in real numbers."""
    if operation.op == "Relu":
        return 0.0, _INFINITE
    edges = (operation.attributes.get("low"), operation.attributes.get("high")) if operation.op == "Clip" else (None, None)
    low, high = (None if edge is None else edge * 2.0**operation.exponent for edge in edges)
    return -_INFINITE if low is None else low, _INFINITE if high is None else high


def _rounding(edges: tuple[float, ...], tensor: Tensor) -> tuple[float, ...]:
    """Bounds on a finer grid, rounded as the tensor is."""
    return tuple(sorted({_on_grid(edge, tensor) for edge in edges}))


def _on_grid(edge: float, tensor: Tensor) -> float:
    scale: float = 2.0**tensor.exponent
    return edge if np.isinf(edge) else float(np.rint(edge / scale)) * scale


def _type_bounds(tensor: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if tensor["type"] != "int8":
        return _NO_EDGES
    scale = tensor["scales"][0]
    return ((-128 - tensor["zero_point"]) * scale,), ((127 - tensor["zero_point"]) * scale,)


def _activation(operator: Mapping[str, Any]) -> tuple[float, float]:
    """Bounds of a fused activation as TFLite puts them on the grid; nothing is inside of those of an unknown one."""
    edges = _ACTIVATIONS.get(operator["options"].get("fusedActivationFunction", 0), (_INFINITE, -_INFINITE))
    return _rounded(edges[0], operator["outputs"][0]), _rounded(edges[1], operator["outputs"][0])


def _rounded(edge: float, tensor: Mapping[str, Any]) -> float:
    if np.isinf(edge) or tensor["type"] != "int8":
        return edge
    return float(np.copysign(np.floor(abs(edge) / tensor["scales"][0] + 0.5), edge) * tensor["scales"][0])


def _different(numbers: Any) -> tuple[float, ...]:
    return tuple(np.unique(np.asarray(numbers, np.float64)).tolist())


def _first(makers: Mapping[int, tuple[int, Mapping[str, Any]]], tensor: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a float tensor in front of a QUANTIZE was before it was moved."""
    while tensor["index"] in makers:
        tensor = makers[tensor["index"]][1]["inputs"][0]
    return tensor
