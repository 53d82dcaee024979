"""An inference graph without variables, and the names its ends have outside TensorFlow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..ir import DataError, ModelError
from .large_constants import aligned, fed_from_outside
from .nodes import array_of, node_of, tensor_name, tensor_shape
from .quiet import quiet

logger = logging.getLogger(__name__)

GraphDef = Any
"""`tf.compat.v1.GraphDef` (TensorFlow has no type stubs)."""

_SQUARES: Final = (32, 64, 96, 128, 192, 224, 256, 299, 384, 512)
_RECTANGLES: Final = range(1, 13)
_EXAMPLE_SIZES: Final = (
    *((size, size) for size in _SQUARES),
    *((first, other) for first in _RECTANGLES for other in _RECTANGLES),
)
"""Heights and widths tried where a model leaves them open: those of known networks, then whatever small ones there are."""

_Prepared = tuple[Any, dict[str, npt.NDArray[Any]]]
"""A session, and the large constants that it is fed with beside the inputs."""


@dataclass(frozen=True, eq=False)
class FrozenGraph:
    """A frozen TensorFlow graph: constants instead of variables, one placeholder per input.

    The batch dimension is dynamic where the graph has rows for each example for any batch size.

    Attributes:
        graph_def: the inference graph as TensorFlow runs it: what only training needs is gone, FakeQuant nodes too.
        input_tensors: outside name -> TensorFlow tensor (`input` -> `input:0`), in the order of the model's inputs.
        output_tensors: the same for the outputs. The outside names are those in the ONNX file (O3).
        name: of the model, for messages and as the graph's name.
        ranges: tensor -> smallest and largest value, where FakeQuant nodes of the source recorded one; both the FakeQuant
            node and the tensor it stood on are named.
        written: nodes as the source has them, where they were changed to take any batch size (`graph_def` has the changed ones).
        rows: the batch size that those nodes are for.
    """

    graph_def: GraphDef
    input_tensors: Mapping[str, str]
    output_tensors: Mapping[str, str]
    name: str
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 1

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
        """Shape of each input, None for the batch dimension and for sizes that the model leaves open."""
        return {
            name: tuple(tensor_shape(self._placeholders[node_of(tensor)].attr["shape"].shape) or ())
            for name, tensor in self.input_tensors.items()
        }

    @cached_property
    def _placeholders(self) -> dict[str, Any]:
        return {node.name: node for node in self.graph_def.node if node.op == "Placeholder"}

    def _type(self, name: str) -> Any:
        return tf.dtypes.as_dtype(self._placeholders[node_of(self.input_tensors[name])].attr["dtype"].type).as_numpy_dtype

    def example_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """Shape of each input for an example batch: as `input_shapes`, open sizes as small as the network takes them.

        Sizes with which every output has one row per example are preferred: with others a Reshape may mix images. A network
        that takes nothing but a single example gets one.

        Raises:
            ModelError: no size that was tried fits.
        """
        opened = any(None in shape[1:] for shape in self.input_shapes.values())
        runs = None
        for count in dict.fromkeys((batch, 1)):
            for first, other in _EXAMPLE_SIZES if opened else ((1, 1),):
                shapes = self._filled(count, first, other)
                rows = self._rows(shapes)
                if rows and all(found == count for found in rows):
                    return shapes
                runs = shapes if runs is None and rows else runs
            if runs is not None:
                return runs
        if opened:
            raise ModelError(f"{self.name}: no size fits the open dimensions of its inputs; give the input shape (H,W,C)")
        return self._filled(batch, 1, 1)

    def _filled(self, batch: int, first: int, other: int) -> dict[str, tuple[int, ...]]:
        """The input shapes with sizes for the first open dimension and for the others."""
        shapes = {}
        for name, shape in self.input_shapes.items():
            opened = [axis for axis, dim in enumerate(shape) if dim is None and axis > 0]
            sizes = dict.fromkeys(opened, other) | dict.fromkeys(opened[:1], first)
            shapes[name] = tuple(
                batch if axis == 0 and dim is None else sizes.get(axis, dim or 0) for axis, dim in enumerate(shape)
            )
        return shapes

    def _rows(self, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
        """First dimension of each output on zeros of these shapes; empty where TensorFlow cannot run it or nothing comes out."""
        try:
            results = self.run({name: np.zeros(shape, self._type(name)) for name, shape in shapes.items()})
        except ModelError:
            return []
        return [] if any(result.size == 0 for result in results.values()) else [(*r.shape, 1)[0] for r in results.values()]

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """What TensorFlow computes, with graph optimizations off.

        Where nodes were changed so that the graph takes any batch size, it is run as the source has them, one example after
        the other, each in a batch of the size that the source was written for, filled with copies.

        Args:
            feeds: one array `[N, ...]` per input, by outside name.

        Returns:
            One array per output, by outside name.

        Raises:
            DataError: an input is missing, unknown, or of the wrong shape.
            ModelError: TensorFlow cannot run the graph on this machine.
        """
        self._check(feeds)
        batched = [name for name, shape in self.input_shapes.items() if shape[:1] == (None,)]
        count = len(feeds[batched[0]]) if batched else 0
        if not self.written or count == 0:
            return self._run(self._session, feeds)
        try:
            parts = [
                self._run(
                    self._session_as_written,
                    {
                        name: np.repeat(array[row : row + 1], self.rows, 0) if name in batched else array
                        for name, array in feeds.items()
                    },
                )
                for row in range(count)
            ]
        except _MissingKernelError as error:
            logger.warning("%s; it is run in the form that is converted", error)
            return self._run(self._session, feeds)
        return {name: _joined([part[name] for part in parts], self.rows) for name in self.output_tensors}

    def _run(self, prepared: _Prepared, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        session, weights = prepared
        values = {**weights, **{self.input_tensors[name]: array for name, array in feeds.items()}}
        try:
            with quiet():
                results = session.run(dict(self.output_tensors), feed_dict=values)
        except (tf.errors.OpError, ValueError) as error:
            text = f"{self.name}: TensorFlow cannot run the graph: {str(getattr(error, 'message', error)).splitlines()[0]}"
            raise (_MissingKernelError if _is_missing_kernel(error) else ModelError)(text) from None
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
    def _session(self) -> _Prepared:
        return _session(self.graph_def)

    @cached_property
    def _session_as_written(self) -> _Prepared:
        graph_def = tf.compat.v1.GraphDef(versions=self.graph_def.versions, library=self.graph_def.library)
        graph_def.node.extend(self.written.get(node.name, node) for node in self.graph_def.node)
        return _session(graph_def)


class _MissingKernelError(ModelError):
    """TensorFlow knows the operator, but cannot compute this form of it here."""


def _is_missing_kernel(error: Exception) -> bool:
    return isinstance(error, tf.errors.UnimplementedError) or "OpKernel" in str(error)


def _session(graph_def: GraphDef) -> _Prepared:
    """TensorFlow keeps several copies of what it imports: large constants are fed, which takes none."""
    without_weights, large = fed_from_outside(graph_def)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(without_weights, name="")
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
    with quiet():
        session = tf.compat.v1.Session(graph=graph, config=config)
    return session, {tensor_name(name): aligned(array_of(node)) for name, node in large.items()}


def _joined(parts: Sequence[npt.NDArray[Any]], rows: int) -> npt.NDArray[Any]:
    """The outputs of single examples, of each the share of one of `rows` copies. What has no rows stands as a row for itself."""
    if parts[0].ndim == 0:
        return np.stack(parts)
    return np.concatenate([part[: len(part) // rows] if len(part) % rows == 0 else part for part in parts])
