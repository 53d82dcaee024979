"""The variables of a regenerated network: weights, batch norms, thresholds (R1)."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ir import QuantizerGraph
from .batch_norm import NormalizedLayer
from .batch_norm_specs import CONSTANT, BatchNormSpec
from .layout import store
from .names import THRESHOLD_PREFIX, WEIGHT_PREFIX, escape
from .program import Program
from .thresholds import initial_log2_t

Arrays = Mapping[str, npt.NDArray[Any]]
NormArrays = Mapping[str, Arrays]
"""Weight of a layer with a batch norm of its own -> role -> array, in the ONNX layout."""

AddWeight = Callable[..., Any]
"""`add_weight` of the Keras model."""


def add_weights(add: AddWeight, program: Program, arrays: Arrays | None, folded: Container[str]) -> dict[str, Any]:
    """Variables of the graph's weights by name, in their stored form.

    Args:
        add: makes them.
        program: the graph.
        arrays: in the ONNX layout; zeros without them.
        folded: names of those that are computed from a batch norm.
    """
    variables = {}
    for name, weight in program.weights.items():
        if name not in folded:
            array = np.zeros(weight.stored_shape, np.float32)
            if arrays is not None:
                array = store(arrays[name], weight.form, weight.groups)
            variables[name] = _add(add, WEIGHT_PREFIX + escape(name), weight.stored_shape, array, trainable=weight.trainable)
    return variables


def add_batch_norm(add: AddWeight, program: Program, spec: BatchNormSpec, arrays: NormArrays) -> NormalizedLayer:
    """A layer with a batch norm of its own.

    Raises:
        ModelError: the graph has no such layer.
    """

    def variable(role: str, shape: tuple[int, ...]) -> Any:
        array = arrays[spec.weight][role] if arrays else np.zeros(shape, np.float32)
        if role == "weight" and arrays:
            array = store(array, program.weights[spec.weight].form, program.weights[spec.weight].groups)
        return _add(
            add,
            WEIGHT_PREFIX + escape(spec.names[role]),
            shape,
            array,
            trainable=role not in CONSTANT,
            aggregation="mean" if role in ("mean", "variance") else "none",  # of what the replicas of a strategy see
        )

    return NormalizedLayer.make(spec, program, variable)


def add_thresholds(add: AddWeight, graph: QuantizerGraph | None, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """One scalar `log2_t` for each share group (T5)."""
    groups = {} if graph is None else graph.groups()
    return {
        group: _add(add, THRESHOLD_PREFIX + escape(group), (), initial_log2_t(members[0], thresholds.get(group)))
        for group, members in groups.items()
    }


def array_of(variable: Any) -> npt.NDArray[np.float32]:
    """What a variable holds."""
    return np.asarray(variable.value.numpy(), np.float32)


def _add(add: AddWeight, name: str, shape: tuple[int, ...], held: npt.NDArray[np.float32] | float, **options: Any) -> Any:
    def initializer(shape: tuple[int, ...], dtype: Any = None) -> npt.NDArray[np.float32]:
        del dtype
        return np.asarray(held, np.float32).reshape(shape)

    return add(name=name, shape=shape, dtype="float32", initializer=initializer, **options)
