"""The oracle: an integer-only executor of Q/DQ models, the reference every engine is compared with (X3).

From the first QuantizeLinear to the last DequantizeLinear there are int64 integers, sums and shifts; where float64 BLAS
adds integers, a bound proves it exact. It is written to be read: each operator is a few lines in `oracle_ops/`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import DataError, ModelError, UnsupportedError, fed_inputs, grid_of, name_of
from .batches import Feeds, moves_batch, slices
from .fixed_tensor import FixedPoint
from .islands import evaluate
from .oracle_ops import OPS, Op, Operand
from .plan import Island, make_plan
from .tables import values as table_values

logger = logging.getLogger(__name__)

Observer = Callable[[onnx_ir.Node, Sequence[Operand | None], Operand], None]
"""Called behind every node that is computed in integers: the node, its inputs, its output."""


class Oracle:
    """Runs a Q/DQ model in integers.

    Args:
        model: a Q/DQ model (opset 21, power-of-two scales, zero points 0).
        ops: the operators; another table gives another rounding, or a mutant to test the tests with.

    Attributes:
        plan: kinds of all values, islands, integer tensors.
    """

    def __init__(self, model: onnx_ir.Model, ops: Mapping[str, Op] = OPS) -> None:
        self.plan = make_plan(model)
        self._graph = model.graph
        self._ops = ops
        self._inputs = [name_of(value) for value in fed_inputs(model.graph)]
        self._outputs = [name_of(value) for value in model.graph.outputs]
        self._constants = {name: value for name, value in model.graph.initializers.items() if value.const_value is not None}
        self._island_nodes = {island.outputs for island in self.plan.islands}
        self._last_use = self._last_uses()
        self._sliceable = not any(moves_batch(node) for node in model.graph)

    @property
    def islands(self) -> tuple[Island, ...]:
        """Nodes computed in floating point, with the reason."""
        return self.plan.islands

    def run(
        self,
        feeds: Feeds,
        overrides: Mapping[str, npt.NDArray[Any]] | None = None,
        *,
        keep: Collection[str] | None = None,
        observe: Observer | None = None,
    ) -> dict[str, Operand]:
        """Computes every integer tensor and the graph outputs.

        Args:
            feeds: graph input name -> float array, batch first.
            overrides: integer tensor name -> integers that the nodes *behind* it read instead of those computed here
                (L12: to start afresh behind a float island). The result still holds what was computed.
            keep: names to return; None returns all integer tensors and graph outputs.
            observe: called behind every node computed in integers, once per batch slice.

        Returns:
            Name -> `FixedPoint`, in topological order; a float64 array for an output that is (behind) an island. What an
            operator unknown even to the ONNX reference computes is absent, and so is everything that needs it.

        Raises:
            DataError: inputs are missing, too many, of unlike batch sizes, or hold NaN.
            UnsupportedError: a scale is not a power of two, a zero point not 0, or a number does not fit int64.
        """
        batch = self._check(feeds)
        wanted = set([*self.plan.integers, *self._outputs] if keep is None else keep)
        overrides = overrides or {}
        if not self._sliceable or not batch:
            return self._run(feeds, overrides, wanted, observe)
        parts, start = [], 0
        for part in slices(feeds):
            end = start + max(array.shape[0] for array in part.values())
            own = {name: array[start:end] for name, array in overrides.items()}
            parts.append(self._run(part, own, wanted, observe))
            start = end
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}

    def _run(self, feeds: Feeds, overrides: Feeds, wanted: set[str], observe: Observer | None) -> dict[str, Operand]:
        values: dict[str, Operand] = {name: np.asarray(array) for name, array in feeds.items()}
        result: dict[str, Operand] = {name: values[name] for name in wanted & values.keys()}
        for position, node in enumerate(self._graph):
            for name, value in self._compute(node, values, observe).items():
                if name in wanted:
                    result[name] = value
                values[name] = value
            for name in (name_of(output) for output in node.outputs if output.name in overrides):
                values[name] = self._overridden(node, name, overrides[name])
            for name in self._last_use.get(position, ()):
                values.pop(name, None)
        return result

    def _compute(self, node: onnx_ir.Node, values: dict[str, Operand], observe: Observer | None) -> dict[str, Operand]:
        """Outputs of one node by name; empty where an input could not be computed."""
        inputs: list[Operand | None] = []
        for value in node.inputs:
            operand = None if value is None or not value.name else self._read(value, values)
            if operand is None and value is not None and value.name:
                logger.debug("%s %r: input %r could not be computed", node.op_type, node.name, value.name)
                return {}
            inputs.append(operand)
        names = [name_of(output) for output in node.outputs if output.name]
        if names[0] in self.plan.tables:
            return {names[0]: self._entries(node, inputs)}
        if tuple(names) in self._island_nodes:
            try:
                return dict(zip((o.name or "" for o in node.outputs), evaluate(node, inputs), strict=False))
            except UnsupportedError as error:
                logger.debug("%s", error)
                return {}
        output = self._ops[node.op_type](node, inputs)
        if observe is not None:
            observe(node, inputs, output)
        return {names[0]: output}

    def _entries(self, node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> Operand:
        """A node of a function of one integer: the last one looks the result up, the others hand the integer on (L12)."""
        x = next(operand for operand in inputs if isinstance(operand, FixedPoint))
        region = self.plan.table_behind(node)
        return x if region is None else table_values(region, x)

    def _read(self, value: onnx_ir.Value, values: dict[str, Operand]) -> Operand | None:
        name = name_of(value)
        if name in self._constants:
            tensor = self._constants[name].const_value
            return None if tensor is None else np.asarray(tensor.numpy())
        return values.get(name)

    def _overridden(self, node: onnx_ir.Node, name: str, integers: npt.NDArray[Any]) -> FixedPoint:
        above = node.inputs[0].producer() if node.op_type == "Clip" and node.inputs[0] is not None else None
        source = above or node  # an integer Clip keeps the grid of the QuantizeLinear it reads
        if source.op_type != "QuantizeLinear":
            raise DataError(
                f"only outputs of QuantizeLinear or of an integer Clip can be overridden. Received: {name!r} of {node.op_type}"
            )
        return FixedPoint(np.asarray(integers).astype(np.int64), grid_of(source).exponent)

    def _last_uses(self) -> dict[int, list[str]]:
        """Node position -> values nobody reads behind it: values are freed as soon as they can be."""
        last: dict[str, int] = {}
        for position, node in enumerate(self._graph):
            last.update({value.name: position for value in [*node.inputs, *node.outputs] if value is not None and value.name})
        freed: dict[int, list[str]] = {}
        for name, position in last.items():
            freed.setdefault(position, []).append(name)
        return freed

    def _check(self, feeds: Feeds) -> int:
        """Batch size of the feeds."""
        if set(feeds) != set(self._inputs):
            raise DataError(f"inputs {sorted(self._inputs)} are expected. Received: {sorted(feeds)}")
        if any(array.ndim == 0 for array in feeds.values()):
            raise DataError("inputs must be batches: the first dimension counts images. Received: a single number")
        sizes = {array.shape[0] for array in feeds.values()}
        if len(sizes) > 1:
            raise DataError(f"all inputs must have the same batch size. Received: {sorted(sizes)}")
        return sizes.pop() if sizes else 0


def _joined(parts: Sequence[Operand]) -> Operand:
    if len(parts) == 1:
        return parts[0]
    fixed = [part for part in parts if isinstance(part, FixedPoint)]
    if fixed:
        if len({part.exponent for part in fixed}) > 1:
            raise ModelError("one tensor has several exponents; its scale depends on the data")
        return FixedPoint(np.concatenate([part.integers for part in fixed]), fixed[0].exponent)
    return np.concatenate([part for part in parts if not isinstance(part, FixedPoint)])
