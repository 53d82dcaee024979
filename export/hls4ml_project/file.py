"""Nodes of a QONNX file in the dialect of hls4ml 1.3 (H3).

Names become names of C++ objects, and hls4ml keeps settings by name without regard to case, so every name here is an identifier
of its own in any case. Every `Quant` has a scale and a zero point of its own, 0-d: hls4ml folds them into the node and deletes
them. Every value is described, initializers too: hls4ml looks shapes up there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...kernels import fixed_point
from ..qonnx_dialect.quant import DOMAIN

CHANNELS_LAST: Final = "qonnx.custom_op.channels_last"
"""Domain of Conv and MaxPool on [N, H, W, C], with weights [filters, height, width, depth]; its versions are those of ONNX."""

_OPSET, _IR_VERSION = 13, 8

_WORDS: Final = frozenset(
    {
        *("and", "asm", "auto", "bool", "break", "case", "catch", "char", "class", "const", "continue", "default", "delete", "do"),
        *(
            "double",
            "else",
            "enum",
            "explicit",
            "export",
            "extern",
            "false",
            "float",
            "for",
            "friend",
            "goto",
            "if",
            "inline",
            "input",
        ),
        *("int", "long", "mutable", "namespace", "network", "new", "nnet", "not", "operator", "or", "private", "protected"),
        *("public", "register", "return", "short", "signed", "sizeof", "static", "std", "struct", "switch", "template", "this"),
        *("throw", "true", "try", "typedef", "union", "unsigned", "using", "virtual", "void", "volatile", "while", "xor"),
    }
)
"""Words that C++, hls4ml and the files around the network have a use for."""

Shape = tuple[int, ...]


class GraphFile:
    """A graph under construction, batch 1.

    Args:
        reserved: names of the network's outputs. hls4ml takes a Reshape for an output whose name an output has.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._shapes: dict[str, Shape] = {}
        self._inputs: list[str] = []
        self._taken = {name.lower() for name in reserved}

    def identifier(self, wanted: str) -> str:
        """A name that C++ takes and nothing else here has."""
        stem = re.sub(r"\W", "_", wanted, flags=re.ASCII)
        stem = stem if re.match(r"[A-Za-z]", stem) else f"t{stem}"
        stem, name, count = (f"{stem}_" if stem.lower() in _WORDS else stem), "", 0
        while not name or name.lower() in self._taken:
            name, count = (stem if not count else f"{stem}_{count}"), count + 1
        self._taken.add(name.lower())
        return name

    def input(self, wanted: str, shape: Shape) -> str:
        """An input of the network; returns what it is called here."""
        name = self.identifier(wanted)
        self._inputs.append(name)
        self._shapes[name] = shape
        return name

    def constant(self, wanted: str, array: npt.NDArray[Any]) -> str:
        """A constant for one reader; returns its name."""
        name = self.identifier(wanted)
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, layer: str, inputs: Sequence[str], shape: Shape, *, domain: str = "", **attributes: Any) -> str:
        """A node; returns its name.

        The value that it computes has the same name: hls4ml confuses the two where it streams a Reshape.
        """
        name = self.identifier(layer)
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, domain=domain, **attributes))
        self._shapes[name] = shape
        return name

    def behind(self, value: str, passed: Collection[str]) -> str:
        """What a value is without the operators it came through, where these are among `passed`."""
        for node in reversed(self._nodes):
            if value in node.output and node.op_type in passed:
                value = node.input[0]
        return value

    def quant(self, layer: str, value: str, shape: Shape, *, bits: int, signed: bool, exponent: int) -> str:
        """Rounds and saturates to `bits` bits on the grid `2^exponent`, ties to even (Q1, Q2)."""
        parameters = {"scale": float(fixed_point.dequantize(np.ones(()), exponent)), "zeropt": 0.0, "bitwidth": float(bits)}
        extra = [self.constant(f"{layer}_{what}", np.array(number, np.float32)) for what, number in parameters.items()]
        attributes: dict[str, Any] = {"signed": int(signed), "narrow": 0, "rounding_mode": "ROUND"}
        return self.node("Quant", layer, [value, *extra], shape, domain=DOMAIN, **attributes)

    def model(self, outputs: Sequence[tuple[str, str]]) -> onnx.ModelProto:
        """The finished model.

        Args:
            outputs: value and the name that it has as an output of the network.
        """
        called = dict(outputs)
        self._drop_unread(set(called))
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [called.get(name, name) for name in names]
        shapes = {called.get(name, name): shape for name, shape in self._shapes.items()}
        ends = [*self._inputs, *called.values()]
        graph = helper.make_graph(
            self._nodes,
            "network",
            [_info(name, shapes[name]) for name in self._inputs],
            [_info(name, shapes[name]) for name in called.values()],
            initializer=self._constants,
            value_info=[
                *(_info(name, shape) for name, shape in shapes.items() if name not in ends),
                *(helper.make_tensor_value_info(item.name, item.data_type, list(item.dims)) for item in self._constants),
            ],
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1), helper.make_opsetid(CHANNELS_LAST, _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="tqt-onnx")

    def _drop_unread(self, kept: set[str]) -> None:
        """Leaves out nodes whose values nobody reads, and their constants."""
        read, nodes = set(kept), []
        for node in reversed(self._nodes):
            if read & set(node.output):
                nodes.append(node)
                read |= set(node.input)
        self._nodes = nodes[::-1]
        self._constants = [item for item in self._constants if item.name in read]
        self._shapes = {name: shape for name, shape in self._shapes.items() if name in read or name in self._inputs}


def _info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
