"""An inference graph without variables, and the names its ends have outside TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..ir import DataError, ModelError
from .quiet import quiet

GraphDef = Any
"""`tf.compat.v1.GraphDef` (TensorFlow has no type stubs)."""


@dataclass(frozen=True, eq=False)
class FrozenGraph:
    """A frozen TensorFlow graph: constants instead of variables, one placeholder per input, batch dimension dynamic.

    Attributes:
        graph_def: the graph as TensorFlow runs it, nothing rewritten.
        input_tensors: outside name -> TensorFlow tensor (`input` -> `input:0`), in the order of the model's inputs.
        output_tensors: the same for the outputs. The outside names are those in the ONNX file (O3).
        name: of the model, for messages and as the graph's name.
    """

    graph_def: GraphDef
    input_tensors: Mapping[str, str]
    output_tensors: Mapping[str, str]
    name: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, as in the ONNX file."""
        return tuple(self.input_tensors)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, as in the ONNX file."""
        return tuple(self.output_tensors)

    @cached_property
    def input_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shape of each input, None for the batch dimension."""
        graph = self._session.graph
        return {name: tuple(graph.get_tensor_by_name(tensor).shape) for name, tensor in self.input_tensors.items()}

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """What TensorFlow computes, with graph optimizations off.

        Args:
            feeds: one array `[N, ...]` per input, by outside name.

        Returns:
            One array per output, by outside name.

        Raises:
            DataError: an input is missing, unknown, or of the wrong shape.
            ModelError: TensorFlow cannot run the graph on this machine.
        """
        self._check(feeds)
        fetches = dict(self.output_tensors)
        values = {self.input_tensors[name]: array for name, array in feeds.items()}
        try:
            with quiet():
                results = self._session.run(fetches, feed_dict=values)
        except tf.errors.OpError as error:
            raise ModelError(f"{self.name}: TensorFlow cannot run the graph: {str(error.message).splitlines()[0]}") from None
        return {name: np.asarray(result) for name, result in results.items()}

    def _check(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        if set(feeds) != set(self.input_tensors):
            raise DataError(f"{self.name}: one array for each of {', '.join(self.inputs)} is expected. Received: {sorted(feeds)}")
        for name, array in feeds.items():
            shape = self.input_shapes[name]
            wrong_dim = any(dim is not None and dim != given for dim, given in zip(shape, array.shape, strict=False))
            if len(shape) != array.ndim or wrong_dim:
                raise DataError(f"{self.name}: input {name!r} has shape {shape}. Received: {array.shape}")

    @cached_property
    def _session(self) -> Any:
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(self.graph_def, name="")
        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
        with quiet():
            return tf.compat.v1.Session(graph=graph, config=config)
