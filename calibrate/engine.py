"""onnxruntime as the float engine: a part of the lowered graph becomes a session."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import onnxruntime

from ..ir import IR_VERSION, UnsupportedError, is_large, name_of, reference

logger = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]
_MB = 1 << 20
BATCH_BYTES = 64 * _MB
"""Target of what the measured tensors of one batch take in memory (C5)."""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_WRONG_FOR_POOLS = "Pad_Fusion"
"""onnxruntime 1.31 joins a zero Pad with the MaxPool behind it, whose padding is minus infinity: wrong for negative numbers."""


class Engine:
    """Builds sessions and keeps count of what they run.

    Attributes:
        runs: how often each node has been executed, by the name of its first output.
    """

    def __init__(self, model: onnx_ir.Model) -> None:
        self._opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
        self.runs: Counter[str] = Counter()

    def session(
        self,
        nodes: Sequence[onnx_ir.Node],
        inputs: Sequence[onnx_ir.Value],
        outputs: Sequence[onnx_ir.Value],
        constants: Arrays,
        *,
        relayout: bool = False,
    ) -> Session:
        """A session of some nodes of the graph.

        Args:
            nodes: in topological order.
            inputs: values that are fed.
            outputs: values that are asked for.
            constants: contents of those initializers that are replaced (quantized weights); the others are taken as they are.
            relayout: let onnxruntime change the memory layout, hence the order of float sums; pays for large parts only.

        Raises:
            UnsupportedError: onnxruntime cannot load these nodes.
        """
        return Session(self, *self._part(nodes, inputs, outputs, constants), nodes, relayout)

    def _part(
        self, nodes: Sequence[onnx_ir.Node], inputs: Sequence[onnx_ir.Value], outputs: Sequence[onnx_ir.Value], constants: Arrays
    ) -> tuple[onnx.ModelProto, Arrays]:
        """The part as a model, and the contents of its large constants, which are not in it."""
        read = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None and value.is_initializer())
        initializers, large = [], {}
        for value in read:
            name = name_of(value)
            if name in constants:
                array = np.asarray(constants[name])
                if is_large(onnx_ir.tensor(array)):
                    large[name] = array
                initializers.append(reference(name, array) if name in large else onnx.numpy_helper.from_array(array, name))
            elif value.const_value is not None and is_large(value.const_value):
                large[name] = np.asarray(value.const_value.numpy(), order="C")
                initializers.append(reference(name, large[name]))
            elif value.const_value is not None:
                tensor = onnx_ir.serde.serialize_tensor(value.const_value)
                tensor.name = name
                initializers.append(tensor)
        graph = onnx.helper.make_graph(
            [onnx_ir.serde.serialize_node(node) for node in nodes],
            "calibrate",
            [_declared(value) for value in inputs],
            [_declared(value) for value in outputs],
            initializers,
        )
        return onnx.helper.make_model(graph, opset_imports=self._opsets, ir_version=IR_VERSION), large


class Session:
    """Some nodes, ready to run."""

    def __init__(self, engine: Engine, part: onnx.ModelProto, large: Arrays, nodes: Sequence[onnx_ir.Node], relayout: bool) -> None:
        self._engine = engine
        self._large = large  # onnxruntime reads them where they are
        self._nodes = [name_of(node.outputs[0]) for node in nodes]
        self._names = [output.name for output in part.graph.output]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        options.log_severity_level = 4  # errors arrive as exceptions
        # its threads would spin on the cores that the statistics need between two runs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        levels = onnxruntime.GraphOptimizationLevel
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in large.values()]
        options.add_external_initializers(list(large), values)
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if relayout else levels.ORT_ENABLE_EXTENDED
        try:
            self._session = onnxruntime.InferenceSession(
                part.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=[_WRONG_FOR_POOLS]
            )
        except Exception as error:
            raise _refused("load", self._nodes, nodes, error) from error
        self._sources = nodes

    def run(self, feed: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Every output for one batch.

        Raises:
            UnsupportedError: onnxruntime fails on these nodes.
        """
        try:
            results = self._session.run(self._names, dict(feed))
        except Exception as error:
            raise _refused("run", self._nodes, self._sources, error) from error
        self._engine.runs.update(self._nodes)
        return dict(zip(self._names, results, strict=True))


def rows_for(values: Sequence[onnx_ir.Value]) -> int:
    """Images per batch, so that these values together stay near `BATCH_BYTES`; 1 to 32."""
    image = sum(4 * elements_per_image(value) for value in values)
    return int(min(32, max(1, BATCH_BYTES // max(1, image))))


def elements_per_image(value: onnx_ir.Value) -> int:
    """Elements of a value for one image; unknown dimensions count as 1."""
    size = 1
    for dim in value.shape or ():
        size *= dim if isinstance(dim, int) else 1
    return size


def _declared(value: onnx_ir.Value) -> onnx.ValueInfoProto:
    return onnx_ir.serde.serialize_value(value)


def _refused(what: str, names: Sequence[str], nodes: Sequence[onnx_ir.Node], error: Exception) -> UnsupportedError:
    operators = ", ".join(sorted({node.op_type for node in nodes}))
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UnsupportedError(
        f"onnxruntime cannot {what} the part of the graph that ends at {names[-1]!r} (operators {operators}); "
        f"calibration needs operators of its CPU provider. Received: {reason[:300]}"
    )
