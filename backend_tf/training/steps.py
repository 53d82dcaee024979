"""Training steps and evaluations as traced functions, for every strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from ...ir import COMPUTE
from ..model import RegeneratedModel
from .data import Batch
from .losses import Loss, Seen, scores
from .phase import Phase
from .state import TrainingState
from .strategies import is_multi_worker

Tensors = dict[str, tf.Tensor]
Traced = Callable[..., tf.Tensor]


class Steps:
    """Runs steps on all replicas of a strategy; every phase is traced once.

    Attributes:
        several_workers: whether other processes take part.

    Args:
        state: what the steps change.
        loss: what they make small.
        teacher: the float model with the weights of the beginning, or None.
        strategy: where they run.
        batch: rows of the global batch.
        regularization: factor of `sum(w^2) / 2` in the loss of the weights.
    """

    def __init__(
        self,
        state: TrainingState,
        loss: Loss,
        teacher: RegeneratedModel | None,
        strategy: tf.distribute.Strategy,
        batch: int,
        regularization: float,
    ) -> None:
        self._state, self._loss, self._teacher, self._strategy, self._batch = state, loss, teacher, strategy, batch
        self._regularization = regularization
        self.several_workers = is_multi_worker(strategy)
        self._decayed = _compute_weights(state.model) if regularization else frozenset[str]()
        self._logits = [head.logits for head in loss.heads]
        self._traced: dict[tuple[Phase, frozenset[str]], Traced] = {}
        self._evaluations: dict[tuple[bool, frozenset[str]], Traced] = {}

    def run(self, phase: Phase, rows: Mapping[int, Batch], stop: bool = False) -> tf.Tensor:
        """One step.

        Args:
            phase: what is on.
            rows: the batch of each replica of this process.
            stop: whether this process was asked to end the training: told to all workers by way of the result.

        Returns:
            Float32 [3]: mean loss of the global batch before the step, its top-1 accuracy (0 without labels), and how many replicas
            were asked to end.
        """
        wide = frozenset(self._state.facts.wide)
        if (phase, wide) not in self._traced:
            self._traced = {(phase, wide): self._trace(phase, wide)}  # an earlier phase does not come back
        return self._traced[phase, wide](*self._distribute(rows), tf.constant(stop, tf.float32))

    def traces(self, phase: Phase) -> bool:
        """Whether the next step of this phase is traced first."""
        return (phase, frozenset(self._state.facts.wide)) not in self._traced

    def evaluate(self, quantized: bool, batch: Batch) -> tf.Tensor:
        """Sums over the rows of one batch, on this process alone.

        Returns:
            Float32 [3]: the loss, right classes (0 without labels), classes that are the float model's (0 without it).
        """
        wide = frozenset(self._state.facts.wide)
        if (quantized, wide) not in self._evaluations:
            self._evaluations = {(quantized, wide): self._trace_evaluation(quantized, wide)}
        feeds, labels = batch
        return self._evaluations[quantized, wide](_tensors(feeds), None if labels is None else tf.convert_to_tensor(labels))

    def _distribute(self, rows: Mapping[int, Batch]) -> tuple[Any, Any]:
        if self._strategy.num_replicas_in_sync == 1:
            feeds, labels = next(iter(rows.values()))
            return _tensors(feeds), None if labels is None else tf.convert_to_tensor(labels)

        def of(context: Any, index: int) -> Any:
            found = rows[context.replica_id_in_sync_group][index]
            return _tensors(found) if isinstance(found, dict) else tf.convert_to_tensor(found)

        values = self._strategy.experimental_distribute_values_from_function
        feeds = values(lambda context: of(context, 0))
        labelled = next(iter(rows.values()))[1] is not None
        return feeds, values(lambda context: of(context, 1)) if labelled else None

    def _trace(self, phase: Phase, wide: frozenset[str]) -> Traced:
        state, strategy, model = self._state, self._strategy, self._state.model
        sources = [variable.value for variable in state.trained] if phase.weights else []

        def on_replica(feeds: Tensors, labels: tf.Tensor | None, stop: tf.Tensor) -> tf.Tensor:
            model.statistics_frozen = not phase.moving  # read while this is traced
            log2_t = tf.convert_to_tensor(state.log2_t.value)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([*sources, *([log2_t] if phase.thresholds else [])])
                outputs = model.forward(
                    feeds, log2_t, training=phase.moving, quantized=phase.quantized, also=self._logits, wide=wide
                )
                seen = Seen(outputs, labels, self._taught(feeds))
                mean = self._loss.of(seen) / self._batch
            gradients = tape.gradient(
                mean, [*sources, *([log2_t] if phase.thresholds else [])], unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            finite = tf.math.is_finite(mean)
            threshold_gradient = tf.zeros([0], tf.float32)
            if phase.thresholds:
                found = gradients.pop()
                threshold_gradient = tf.where(finite, found, tf.zeros_like(found))
            if phase.weights:
                self._apply(finite, gradients)
            right = tf.reduce_sum(self._right(seen)) / self._batch
            return tf.concat([tf.stack([mean, right, stop]), threshold_gradient], 0)

        def step(feeds: Any, labels: Any, stop: tf.Tensor) -> tf.Tensor:
            found = strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(on_replica, args=(feeds, labels, stop)), axis=None)
            if phase.thresholds:
                state.move_thresholds(found[3:])
            return found[:3]

        traced: Traced = tf.function(step, autograph=False)
        return traced

    def _apply(self, finite: tf.Tensor, gradients: list[tf.Tensor]) -> None:
        """Moves the weights; what comes from a loss that is not finite must not reach them: what blew up is looked for in them."""

        def moved(found: list[tf.Tensor]) -> tf.Tensor:
            inside = [tf.identity(gradient) for gradient in found]  # Keras wants all of them from the graph of this branch
            self._state.weight_optimizer.apply(self._regularized(inside), self._state.trained)
            return finite

        if self._strategy.num_replicas_in_sync == 1:
            tf.cond(finite, lambda: moved(gradients), lambda: finite)
            return
        # Replicas can add up gradients only where all of them do: one whose loss is not finite gives zeros.
        moved([tf.where(finite, gradient, tf.zeros_like(gradient)) for gradient in gradients])

    def _trace_evaluation(self, quantized: bool, wide: frozenset[str]) -> Traced:
        state = self._state

        def evaluate(feeds: Tensors, labels: tf.Tensor | None) -> tf.Tensor:
            log2_t = tf.convert_to_tensor(state.log2_t.value)
            outputs = state.model.forward(feeds, log2_t, quantized=quantized, also=self._logits, wide=wide)
            seen = Seen(outputs, labels, self._taught(feeds))
            return tf.stack([self._loss.of(seen), tf.reduce_sum(self._right(seen)), tf.reduce_sum(self._agreeing(seen))])

        traced: Traced = tf.function(evaluate, autograph=False, reduce_retracing=True)
        return traced

    def _taught(self, feeds: Tensors) -> Tensors | None:
        if self._teacher is None:
            return None
        return self._teacher.forward(feeds, quantized=False, also=[head.teacher_logits for head in self._loss.heads])

    def _right(self, seen: Seen) -> tf.Tensor:
        head = self._loss.scored
        if head is None or seen.labels is None or len(seen.labels.shape) != 1 or not seen.labels.dtype.is_integer:
            return tf.zeros([1], tf.float32)
        return tf.cast(tf.equal(_classes(seen.outputs[head.logits]), tf.cast(seen.labels, tf.int64)), tf.float32)

    def _agreeing(self, seen: Seen) -> tf.Tensor:
        head = self._loss.scored
        if head is None or seen.teacher is None:
            return tf.zeros([1], tf.float32)
        own, teacher = _classes(seen.outputs[head.logits]), _classes(seen.teacher[head.teacher_logits])
        return tf.cast(tf.equal(own, teacher), tf.float32)

    def _regularized(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """The gradient of the regularization is added by every replica in equal parts: their sum has it once."""
        share = self._regularization / self._strategy.num_replicas_in_sync
        pairs = zip(gradients, self._state.trained, strict=True)
        return [gradient + share * variable.value if variable.name in self._decayed else gradient for gradient, variable in pairs]


def _classes(tensor: tf.Tensor) -> tf.Tensor:
    return tf.argmax(scores(tensor), axis=1)


def _compute_weights(model: RegeneratedModel) -> frozenset[str]:
    """Names of the variables that are weights of compute layers: neither biases nor gamma and beta."""
    read = {step.input(1) for step in model.program.steps if step.op in COMPUTE}
    own = {variable.name for variable in model.trainable_weights_only if len(variable.shape) > 1}  # of layers with a batch norm
    names = model.true_names.items()
    return frozenset(
        variable for variable, name in names if name in read or (variable in own and name not in model.program.weights)
    )


def _tensors(feeds: Mapping[str, Any]) -> Tensors:
    return {name: tf.convert_to_tensor(array) for name, array in feeds.items()}
