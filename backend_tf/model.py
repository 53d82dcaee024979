"""The regenerated network: a Keras model that runs the lowered ONNX graph, in float or quantized (R1 to R3)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import tensorflow as tf

from ..ir import ModelError, QuantizerGraph, UsageError
from .batch_norm_specs import BatchNormSpecs
from .batch_statistics import normalize
from .carry import carried_pairs, rounded_clips
from .exactness import wide_steps
from .fusion import fused
from .inputs import feeds_of
from .layout import Laid, restore
from .ops import STEPS
from .program import Program, fill, parse
from .taps import Tapped, Taps
from .thresholds import Thresholds
from .trace import Trace
from .variables import Arrays, NormArrays, add_batch_norm, add_thresholds, add_weights, array_of

Feeds = dict[str, tf.Tensor]
T = TypeVar("T")

MOMENTUM = 0.99
"""Of batch norm statistics, unless said otherwise: a frozen graph does not carry it (B0)."""


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """Keeps Keras from tracking a container a second time: `add_weight` has already registered what is in it."""

    value: T


@keras.saving.register_keras_serializable(package="tqt_onnx")
class RegeneratedModel(keras.Model):  # type: ignore[misc]
    """A lowered ONNX graph as a trainable Keras model; made by `regenerate`, saved and loaded like any Keras model.

    Inputs and outputs are those of the ONNX graph: one tensor, or a dict by name where there are several. Inside, everything is
    NHWC (R2). The variables are the graph's float initializers and one scalar `log2_t` per share group of quantizers (R1, T5);
    `true_names` tells which variable is which. A layer into which one batch norm was folded has that batch norm's variables
    instead, and its own weight as it was: they are folded anew in every step (B2).

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
        batch_norms: str | None = None,
        batch_norm_arrays: NormArrays | None = None,
        batch_norm_momentum: float = MOMENTUM,
        statistics_frozen: bool = True,
        **options: Any,
    ) -> None:
        """Builds all variables.

        Args:
            graph: serialised ONNX model whose weights need no data (`program.skeleton`).
            quantizers: JSON of a decided quantizer graph, or None for a model that is float only.
            quantizers_on: whether the quantizers are on.
            arrays: the weights by name in the ONNX layout; zeros without them (they are then loaded).
            thresholds: `{share group: log2_t}`; the middle of each exponent's interval without them.
            batch_norms: JSON of the layers with a batch norm of their own (`BatchNormSpecs`).
            batch_norm_arrays: weight of such a layer -> role -> array, in the ONNX layout; zeros without them.
            batch_norm_momentum: how much of the moving statistics a training step keeps, 0 to 1.
            statistics_frozen: whether training uses the moving statistics as they are.
            options: of `keras.Model`.

        Raises:
            UsageError: a momentum outside 0 to 1.
            ModelError: batch norms that do not belong to the graph.
        """
        if not 0 <= batch_norm_momentum <= 1:
            raise UsageError(f"batch_norm_momentum must be between 0 and 1. Received: {batch_norm_momentum}")
        super().__init__(**{**options, "dtype": "float32"})  # mixed precision would not be exact (X5)
        self._skeleton = graph
        self._decided = None if quantizers is None else QuantizerGraph.from_json(quantizers)
        self._on = quantizers_on and self._decided is not None
        quantized = frozenset[str]() if self._decided is None else frozenset(self._decided.by_value())
        self._parsed = Held(parse(onnx_ir.serde.deserialize_model(onnx.ModelProto.FromString(graph)), quantized))
        self._specs = BatchNormSpecs() if batch_norms is None else BatchNormSpecs.from_json(batch_norms)
        self.batch_norm_momentum = float(batch_norm_momentum)
        self._frozen = bool(statistics_frozen)
        folded = {name for spec in self._specs.layers for name in (spec.weight, spec.bias)}
        norms = (add_batch_norm(self.add_weight, self.program, spec, batch_norm_arrays or {}) for spec in self._specs.layers)
        self._variables_of = Held(add_weights(self.add_weight, self.program, arrays, folded))
        self._norms = Held(tuple(norms))
        self._log2_t = Held(add_thresholds(self.add_weight, self._decided, thresholds or {}))
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
    def statistics_frozen(self) -> bool:
        """Whether training uses the moving statistics of batch norms as they are, and leaves them so (B2).

        While it is False, `training=True` normalizes with the statistics of the batch and moves the moving ones. Setting it makes
        Keras trace its functions anew; functions of one's own that were traced before stay as they are.
        """
        return self._frozen

    @statistics_frozen.setter
    def statistics_frozen(self, frozen: bool) -> None:
        self._frozen = bool(frozen)
        self.train_function = self.test_function = self.predict_function = None

    @property
    def folded_layers(self) -> dict[str, str]:
        """Layers whose batch norm cannot be trained by itself, with the reason: their weight and bias are trained as they are."""
        return dict(self._specs.folded)

    @property
    def batch_norm_layers(self) -> tuple[str, ...]:
        """Names of the layers with a batch norm of their own."""
        return tuple(layer.step.name for layer in self._norms.value)

    @property
    def true_names(self) -> dict[str, str]:
        """Variable name -> name of the ONNX initializer (before batch norms were folded), or of the share group for a `log2_t`."""
        names = {variable.name: name for name, variable in self._variables_of.value.items()}
        for layer in self._norms.value:
            names |= {variable.name: layer.spec.names[role] for role, variable in layer.variables.items()}
        return names | {variable.name: group for group, variable in self._log2_t.value.items()}

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """The current weights of the lowered graph by ONNX name, in the ONNX layout; batch norms are folded (B3)."""
        found = {
            name: restore(array_of(variable), self.program.weights[name].form)
            for name, variable in self._variables_of.value.items()
        }
        for layer in self._norms.value:
            found |= layer.arrays()
        return {name: found[name] for name in self.program.weights}

    def log2_thresholds(self) -> dict[str, float]:
        """The current thresholds by share group."""
        return {group: float(array_of(variable)) for group, variable in self._log2_t.value.items()}

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
        return np.array([array_of(variable) for variable in self._log2_t.value.values()], np.float32)

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
        """The float ONNX model with the current weights, batch norms folded (B3).

        Raises:
            ModelError: weights that are not finite.
        """
        arrays = self.arrays()
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ModelError(f"weight {name!r} holds NaN or infinities; finite weights are expected")
        return fill(onnx_ir.serde.deserialize_model(onnx.ModelProto.FromString(self._skeleton)), arrays)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Runs the graph. Layers that float32 cannot hold are found when it is traced, from the weights of that moment (X2)."""
        graph = self._decided if self._on else None
        one_pass = () if training else None  # what is exported holds TensorFlow's own operators alone
        feeds = feeds_of(self.program, inputs)
        outputs = self._run(feeds, self.wide_layers(), graph, training=bool(training), one_pass=one_pass)[0]
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def forward(
        self,
        feeds: Feeds,
        thresholds: tf.Tensor | None = None,
        *,
        training: bool = False,
        quantized: bool = True,
        also: Sequence[str] = (),
        wide: frozenset[str] | None = None,
    ) -> Feeds:
        """Runs the graph as `call` does, for a training loop that holds the thresholds itself.

        Args:
            feeds: every input by name.
            thresholds: float32 [groups] in the order of `groups`, used instead of the model's own variables.
            training: normalizes with the statistics of the batch and moves the moving ones, unless `statistics_frozen` (B2).
            quantized: False runs in float.
            also: names of further values that are returned, in the ONNX layout: logits, say.
            wide: names of the layers that run in float64 (`wide_layers`), instead of those that the current weights ask for.

        Returns:
            Outputs and the values of `also` by name.
        """
        graph = self._decided if quantized else None
        if wide is None or not quantized:
            wide = self.wide_layers() if quantized else frozenset()
        given = feeds_of(self.program, feeds)
        outputs, trace = self._run(given, wide, graph, thresholds=thresholds, training=training, one_pass=also)
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
            "batch_norms": base64.b64encode(self._specs.to_json().encode()).decode(),
            "batch_norm_momentum": self.batch_norm_momentum,
            "statistics_frozen": self._frozen,
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
            batch_norms=base64.b64decode(config["batch_norms"]).decode(),
            batch_norm_momentum=config["batch_norm_momentum"],
            statistics_frozen=config["statistics_frozen"],
            name=config["name"],
        )

    def _run(
        self,
        feeds: Feeds,
        wide: frozenset[str],
        graph: QuantizerGraph | None,
        tap: bool = False,
        thresholds: tf.Tensor | None = None,
        training: bool = False,
        one_pass: Sequence[str] | None = None,
    ) -> tuple[dict[str, tf.Tensor], Trace]:
        """The outputs, and the trace with what was tapped; in float without a quantizer graph.

        With `one_pass`, the names of the values that are asked for, ends of layers run as one step (`fusion`).
        """
        log2_t = self._log2_t.value if thresholds is None else dict(zip(self.groups, tf.unstack(thresholds), strict=True))
        exponents = None if graph is None else Thresholds(graph, log2_t)
        quantizers = {} if graph is None else graph.by_value()
        quantizers |= rounded_clips(self.program, quantizers)
        weights = self._lowered_weights()
        moving = {layer.step.outputs[0]: layer for layer in self._norms.value} if training and not self._frozen else {}
        program = self.program
        if graph is not None and one_pass is not None:
            program, quantizers = fused(program, quantizers, one_pass, [layer.step.name for layer in moving.values()])
        trace = Trace(program, weights, exponents, quantizers, wide, tap, one_pass is not None)
        for name, tensor in feeds.items():
            trace.store(name, Laid.plain(tensor))
        for step in program.steps:
            layer = moving.get(step.outputs[0])
            found = STEPS[step.op](trace, step) if layer is None else normalize(trace, layer, weights, self.batch_norm_momentum)
            for name, laid in zip(step.outputs, found if isinstance(found, tuple) else (found,), strict=False):
                trace.store(name, laid)
        outputs = {name: trace.value(name).onnx for name in self.program.outputs}
        narrow = {name: tf.cast(tensor, tf.float32) if tensor.dtype == tf.float64 else tensor for name, tensor in outputs.items()}
        return narrow, trace

    def _lowered_weights(self) -> dict[str, Any]:
        """The weights of the lowered graph by name, in their stored form; batch norms folded with their moving statistics."""
        weights = dict(self._variables_of.value)
        for layer in self._norms.value:
            weights |= layer.folded()
        return weights

    def _tapped(self, feeds: Feeds, wide: frozenset[str]) -> Tapped:
        """One run with everything that can be compared."""
        assert self._decided is not None
        outputs, trace = self._run(feeds, wide, self._decided, tap=True)
        trace.tap_carried(carried_pairs(self.program, self._decided.by_value()))
        return Tapped(trace.taps, trace.carried, outputs)
