"""The regenerated network: a Keras model that runs the lowered ONNX graph, in float or quantized (R1 to R3)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import tensorflow as tf

from ..ir import DataError, ModelError, QuantizerGraph, UsageError
from .carry import carried_pairs, rounded_clips
from .exactness import wide_steps
from .layout import Laid, restore, store
from .names import THRESHOLD_PREFIX, WEIGHT_PREFIX, escape
from .ops import OPS
from .program import Program, fill, parse
from .taps import Tapped, Taps
from .thresholds import Thresholds, initial_log2_t
from .trace import Trace

Arrays = Mapping[str, npt.NDArray[Any]]
Feeds = dict[str, tf.Tensor]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """Keeps Keras from tracking a container a second time: `add_weight` has already registered what is in it."""

    value: T


@keras.saving.register_keras_serializable(package="tqt_onnx")
class RegeneratedModel(keras.Model):  # type: ignore[misc]
    """A lowered ONNX graph as a trainable Keras model; made by `regenerate`, saved and loaded like any Keras model.

    Inputs and outputs are those of the ONNX graph: one tensor, or a dict by name where there are several. Inside, everything is
    NHWC (R2). The variables are the graph's float initializers and one scalar `log2_t` per share group of quantizers (R1, T5);
    `true_names` tells which variable is which.

    Attributes:
        program: the graph as a list of steps.
    """

    def __init__(
        self,
        graph: bytes,
        quantizers: str | None = None,
        quantizers_on: bool = True,
        arrays: Arrays | None = None,
        thresholds: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        """Builds all variables.

        Args:
            graph: serialised ONNX model whose weights need no data (`program.skeleton`).
            quantizers: JSON of a decided quantizer graph, or None for a model that is float only.
            quantizers_on: whether the quantizers are on.
            arrays: the weights by name in the ONNX layout; zeros without them (they are then loaded).
            thresholds: `{share group: log2_t}`; the middle of each exponent's interval without them.
            options: of `keras.Model`.
        """
        super().__init__(**{**options, "dtype": "float32"})  # mixed precision would not be exact (X5)
        self._skeleton = graph
        self._decided = None if quantizers is None else QuantizerGraph.from_json(quantizers)
        self._on = quantizers_on and self._decided is not None
        quantized = frozenset[str]() if self._decided is None else frozenset(self._decided.by_value())
        self._parsed = Held(parse(onnx_ir.serde.deserialize_model(onnx.ModelProto.FromString(graph)), quantized))
        self._variables_of = Held(self._add_weights(arrays))
        self._log2_t = Held(self._add_thresholds(thresholds or {}))
        self._taps = Taps(self.program, self._tapped)
        self.supports_jit = False  # XLA's convolutions on a CPU are slower than oneDNN's
        self.built = True

    def build(self, input_shape: object = None) -> None:
        """Nothing is left to build."""
        del input_shape

    @property
    def program(self) -> Program:
        """The graph as a list of steps."""
        return self._parsed.value

    @property
    def quantizers_on(self) -> bool:
        """Whether the quantizers are on. Setting it makes Keras trace its functions anew.

        Raises:
            UsageError: switched on in a model without quantizers.
        """
        return self._on

    @quantizers_on.setter
    def quantizers_on(self, on: bool) -> None:
        if on and self._decided is None:
            raise UsageError(
                "quantizers_on: this model was regenerated without a quantizer graph; give one to regenerate(). Received: True"
            )
        self._on = bool(on)
        self.train_function = self.test_function = self.predict_function = None

    @property
    def true_names(self) -> dict[str, str]:
        """Variable name -> name of the ONNX initializer, or of the share group for a `log2_t`."""
        names = {variable.name: name for name, variable in self._variables_of.value.items()}
        return names | {variable.name: group for group, variable in self._log2_t.value.items()}

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """The current weights by ONNX name, in the ONNX layout."""
        return {
            name: restore(_array(variable), self.program.weights[name].form) for name, variable in self._variables_of.value.items()
        }

    def log2_thresholds(self) -> dict[str, float]:
        """The current thresholds by share group."""
        return {group: float(_array(variable)) for group, variable in self._log2_t.value.items()}

    @property
    def groups(self) -> tuple[str, ...]:
        """Share groups with a threshold of their own: the order of every vector of thresholds."""
        return tuple(self._log2_t.value)

    @property
    def trainable_weights_only(self) -> list[Any]:
        """The trainable variables that are no thresholds."""
        thresholds = {variable.name for variable in self._log2_t.value.values()}
        return [variable for variable in self.trainable_variables if variable.name not in thresholds]

    def threshold_vector(self) -> npt.NDArray[np.float32]:
        """The current `log2_t`, float32 [groups]."""
        return np.array([_array(variable) for variable in self._log2_t.value.values()], np.float32)

    def set_thresholds(self, log2_t: npt.NDArray[np.float32]) -> None:
        """Sets every threshold.

        Args:
            log2_t: float32 [groups], in the order of `groups`.
        """
        for variable, value in zip(self._log2_t.value.values(), log2_t, strict=True):
            variable.assign(value)

    @property
    def logit_names(self) -> tuple[str, ...]:
        """For each output the value in front of its Softmax, else the output itself."""
        return tuple(self.program.logits(name) for name in self.program.outputs)

    def quantizer_graph(self) -> QuantizerGraph:
        """The quantizer graph with the exponents of the current thresholds.

        Raises:
            UsageError: the model has no quantizers.
            UnsupportedError: a threshold has left the exact range (Q5).
        """
        if self._decided is None:
            raise UsageError("this model was regenerated without a quantizer graph")
        return self._decided.decide(self.log2_thresholds())

    def float_model(self) -> onnx_ir.Model:
        """The float ONNX model with the current weights."""
        return fill(onnx_ir.serde.deserialize_model(onnx.ModelProto.FromString(self._skeleton)), self.arrays())

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Runs the graph. Layers that float32 cannot hold are found when it is traced, from the weights of that moment (X2)."""
        del training  # nothing of the graph behaves differently (batch norm is folded)
        outputs = self._run(self._feeds(inputs), self.wide_layers(), self._decided if self._on else None)[0]
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def forward(
        self,
        feeds: Feeds,
        thresholds: tf.Tensor | None = None,
        *,
        training: bool = False,
        quantized: bool = True,
        also: Sequence[str] = (),
    ) -> Feeds:
        """Runs the graph as `call` does, for a training loop that holds the thresholds itself.

        Args:
            feeds: every input by name.
            thresholds: float32 [groups] in the order of `groups`, used instead of the model's own variables.
            training: unused while no statistics move.
            quantized: False runs in float.
            also: names of further values that are returned, in the ONNX layout: logits, say.

        Returns:
            Outputs and the values of `also` by name.
        """
        del training
        graph = self._decided if quantized else None
        outputs, trace = self._run(
            self._feeds(feeds), self.wide_layers() if quantized else frozenset(), graph, thresholds=thresholds
        )
        return outputs | {name: tf.cast(trace.value(name).onnx, tf.float32) for name in also if name not in outputs}

    def integers(self, feeds: Arrays, batch_size: int = 64) -> dict[str, npt.NDArray[np.int32]]:
        """The integers of every quantizer, as the model computes them with the quantizers on.

        Args:
            feeds: input name -> array of the graph's shape and dtype; the first axis is the batch.
            batch_size: rows that are run at once.

        Returns:
            `ir.integer_name(value)` -> int32 array in the ONNX layout.

        Raises:
            UsageError: the model has no quantizers.
            DataError: feeds of other names, shapes or dtypes, or none at all.
        """
        wide = wide_steps(self.program, self.quantizer_graph(), self.arrays())
        return self._taps.run(feeds, batch_size, wide)

    def everything(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """All that can be compared with the Q/DQ model, as the model computes it with the quantizers on, in one batch.

        Args:
            feeds: as for `integers`.

        Returns:
            In the ONNX layout: what `integers` returns; the int64 integers `ir.integer_name(value)` of every value that an
            operator which only moves elements puts on its input's grid (L7); the model's outputs under their own names.

        Raises:
            UsageError: the model has no quantizers.
            DataError: feeds of other names, shapes or dtypes, or none at all.
        """
        return self._taps.everything(feeds, wide_steps(self.program, self.quantizer_graph(), self.arrays()))

    def wide_layers(self) -> frozenset[str]:
        """Names of the layers that run in float64, since the static bound of their integers passes 2^24 (X2); none in float."""
        if self._decided is None or not self._on:
            return frozenset()
        with tf.init_scope():
            return wide_steps(self.program, self.quantizer_graph(), self.arrays())

    def dry_run(self) -> None:
        """Traces the float graph once, so that what cannot be regenerated is found before anything runs.

        Raises:
            UnsupportedError: a use of an operator that has no counterpart here.
            ModelError: shapes or types that do not fit.
        """
        traced = tf.function(lambda feeds: self._run(feeds, frozenset(), None)[0], autograph=False)
        try:
            traced.get_concrete_function({name: tf.TensorSpec(*spec) for name, spec in self.program.inputs.items()})
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise ModelError(f"regenerate: TensorFlow does not take the graph: {str(error).splitlines()[0]}") from error

    def get_config(self) -> dict[str, Any]:
        """The graph without its weights, the quantizers and the switch; the variables are saved beside it."""
        quantizers = None if self._decided is None else self._decided.to_json()
        return {
            "name": self.name,
            "graph": base64.b64encode(self._skeleton).decode(),
            "quantizers": None if quantizers is None else base64.b64encode(quantizers.encode()).decode(),
            "quantizers_on": self._on,
            "true_names": self.true_names,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: object = None) -> RegeneratedModel:
        """The inverse of `get_config`."""
        del custom_objects
        quantizers = config["quantizers"]
        return cls(
            base64.b64decode(config["graph"]),
            None if quantizers is None else base64.b64decode(quantizers).decode(),
            config["quantizers_on"],
            name=config["name"],
        )

    def _add_weights(self, arrays: Arrays | None) -> dict[str, Any]:
        variables = {}
        for name, weight in self.program.weights.items():
            stored = (
                np.zeros(weight.stored_shape, np.float32) if arrays is None else store(arrays[name], weight.form, weight.groups)
            )
            variables[name] = self.add_weight(
                name=WEIGHT_PREFIX + escape(name),
                shape=weight.stored_shape,
                dtype="float32",
                initializer=_holding(stored),
                trainable=weight.trainable,
            )
        return variables

    def _add_thresholds(self, thresholds: Mapping[str, float]) -> dict[str, Any]:
        if self._decided is None:
            return {}
        return {
            group: self.add_weight(
                name=THRESHOLD_PREFIX + escape(group),
                shape=(),
                dtype="float32",
                initializer=_holding(initial_log2_t(members[0], thresholds.get(group))),
            )
            for group, members in self._decided.groups().items()
        }

    def _run(
        self,
        feeds: Feeds,
        wide: frozenset[str],
        graph: QuantizerGraph | None,
        tap: bool = False,
        thresholds: tf.Tensor | None = None,
    ) -> tuple[dict[str, tf.Tensor], Trace]:
        """The outputs, and the trace with what was tapped; in float without a quantizer graph."""
        log2_t = self._log2_t.value if thresholds is None else dict(zip(self.groups, tf.unstack(thresholds), strict=True))
        exponents = None if graph is None else Thresholds(graph, log2_t)
        quantizers = {} if graph is None else graph.by_value()
        quantizers |= rounded_clips(self.program, quantizers)
        trace = Trace(self.program, self._variables_of.value, exponents, quantizers, wide, tap)
        for name, tensor in feeds.items():
            trace.store(name, Laid.plain(tensor))
        for step in self.program.steps:
            found = OPS[step.op](trace, step)
            for name, laid in zip(step.outputs, found if isinstance(found, tuple) else (found,), strict=False):
                trace.store(name, laid)
        outputs = {name: trace.value(name).onnx for name in self.program.outputs}
        narrow = {name: tf.cast(tensor, tf.float32) if tensor.dtype == tf.float64 else tensor for name, tensor in outputs.items()}
        return narrow, trace

    def _tapped(self, feeds: Feeds, wide: frozenset[str]) -> Tapped:
        """One run with everything that can be compared."""
        assert self._decided is not None
        outputs, trace = self._run(feeds, wide, self._decided, tap=True)
        trace.tap_carried(carried_pairs(self.program, self._decided.by_value()))
        return Tapped(trace.taps, trace.carried, outputs)

    def _feeds(self, inputs: Any) -> Feeds:
        """The inputs of `call` by name, with their static shapes."""
        names = list(self.program.inputs)
        listed = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        given = inputs if isinstance(inputs, Mapping) else dict(zip(names, listed, strict=False))
        if set(given) != set(names) or (given is not inputs and len(listed) != len(names)):
            raise DataError(f"inputs {names} are expected, as a dict, a list or one tensor. Received: {list(given)}")
        feeds = {}
        for name, (shape, dtype) in self.program.inputs.items():
            tensor = tf.convert_to_tensor(given[name])
            if not tensor.shape.is_compatible_with(shape):
                raise DataError(f"input {name!r}: shape {shape} is expected. Received: {tuple(tensor.shape)}")
            feeds[name] = tf.cast(tf.ensure_shape(tensor, shape), dtype)
        return feeds


def _holding(array: npt.NDArray[np.float32] | float) -> Callable[..., npt.NDArray[np.float32]]:
    """An initializer that gives this array."""
    return lambda shape, dtype=None: np.asarray(array, np.float32).reshape(shape)  # noqa: ARG005


def _array(variable: Any) -> npt.NDArray[np.float32]:
    return np.asarray(variable.value.numpy(), np.float32)
