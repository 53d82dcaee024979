"""What only training needs goes; what it orders, guards and randomizes does not change the numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.frontend_tf.inference.freeze import freeze_graph_def
from tqt_onnx.frontend_tf.quiet import quiet
from tqt_onnx.frontend_tf.rewrites.learning_phase import learning_phases
from tqt_onnx.ir import ModelError, UnsupportedError

v1 = tf.compat.v1
Write = Callable[..., Path]
Check = Callable[..., None]


def constant(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def x_of(*shape: int | None, dtype: Any = tf.float32, name: str = "x") -> Any:
    return v1.placeholder(dtype, (None, *shape), name=name)


def old_dropout(x: Any, keep: Any) -> Any:
    """As TensorFlow 1 wrote it."""
    mask = tf.floor(tf.add(keep, tf.random.uniform(tf.shape(x))))
    return tf.multiply(tf.divide(x, keep), mask, name="dropout/mul")


def middle_dropout(x: Any, rate: float) -> Any:
    """As TensorFlow 1.13 to 2.8 wrote it."""
    mask = tf.cast(tf.random.uniform(tf.shape(x)) >= rate, tf.float32)
    return tf.multiply(tf.multiply(x, np.float32(1 / (1 - rate))), mask)


DROPOUTS: dict[str, Callable[[Any], Any]] = {
    "floor": lambda x: old_dropout(x, np.float32(0.6)),
    "floor, keep fed": lambda x: old_dropout(x, v1.placeholder(tf.float32, name="keep_prob")),
    "floor, keep by default": lambda x: old_dropout(x, v1.placeholder_with_default(np.float32(0.5), (), name="keep_prob")),
    "cast": lambda x: middle_dropout(x, 0.3),
    "select": lambda x: tf.nn.dropout(x, rate=0.3),
    "select, keep fed": lambda x: v1.nn.dropout(x, keep_prob=v1.placeholder(tf.float32, name="keep_prob")),
    "stateless": lambda x: tf.nn.experimental.stateless_dropout(x, rate=0.4, seed=[1, 2]),
    "one mask for all rows": lambda x: tf.nn.dropout(x, rate=0.3, noise_shape=(1, 4)),
}


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_hands_on_its_input(write_graph: Write, assert_same: Check, kind: str) -> None:
    path = write_graph(lambda: tf.add(DROPOUTS[kind](tf.nn.relu(x_of(4))), np.float32(1), name="y"))
    frozen = load(path)
    assert (frozen.inputs, frozen.outputs) == (("x",), ("y",))
    x = constant(3, 4)
    np.testing.assert_array_equal(frozen.run({"x": x})["y"], np.maximum(x, 0) + 1)
    assert {node.op for node in frozen.graph_def.node} == {"Placeholder", "Relu", "Const", "AddV2"}
    assert_same(frozen, to_onnx(frozen))


def test_a_network_may_end_with_dropout_and_keeps_the_name(write_graph: Write, assert_same: Check) -> None:
    frozen = load(write_graph(lambda: old_dropout(tf.nn.relu(x_of(4)), np.float32(0.6))))
    assert frozen.outputs == ("dropout/mul",)
    model = to_onnx(frozen)
    assert [value.name for value in model.graph.outputs] == ["dropout/mul"]
    assert_same(frozen, model)


def test_a_factor_that_is_not_the_masks_stays(write_graph: Write) -> None:
    """x * 3 * mask with 30% dropped: 3 is not 1 / 0.7."""

    def build() -> None:
        x = x_of(4)
        tf.multiply(x * np.float32(3), tf.cast(tf.random.uniform(tf.shape(x)) >= 0.3, tf.float32), name="y")

    x = constant(2, 4)
    np.testing.assert_array_equal(load(write_graph(build)).run({"x": x})["y"], x * np.float32(3))


def fed(name: str = "keep_prob") -> Any:
    return v1.placeholder(tf.float32, (), name=name)


def floored(x: Any, keep: Any) -> Any:
    return tf.multiply(x, tf.floor(keep + tf.random.uniform(tf.shape(x))))


FACTORS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "a constant in front": (lambda x: floored(x * np.float32(0.5), fed()), 0.5),
    "a constant in front of dropout": (lambda x: old_dropout(x * np.float32(0.5), fed()), 0.5),
    "a divisor in front": (lambda x: floored(x / np.float32(4), fed()), 0.25),
    "select": (
        lambda x: tf.where(tf.random.uniform(tf.shape(x)) < fed(), x * np.float32(0.25), tf.zeros_like(x)),
        0.25,
    ),
    "rate fed": (
        lambda x: (
            (rate := fed("rate")) is not None
            and tf.where(tf.random.uniform(tf.shape(x)) >= rate, x * (1.0 / (1.0 - rate)), tf.zeros_like(x))
        ),
        1.0,
    ),
}


@pytest.mark.parametrize("kind", FACTORS)
def test_only_the_factor_of_a_fed_mask_goes_with_it(write_graph: Write, kind: str) -> None:
    build, factor = FACTORS[kind]
    x = constant(2, 4)
    frozen = load(write_graph(lambda: tf.identity(build(x_of(4)), name="y")))
    np.testing.assert_array_equal(frozen.run({"x": x})["y"], x * np.float32(factor))


@pytest.mark.parametrize("noise", [tf.random.normal, tf.random.uniform])
def test_other_random_numbers_are_refused(write_graph: Write, noise: Callable[..., Any]) -> None:
    def build() -> None:
        x = x_of(4)
        tf.add(x, noise(tf.shape(x)), name="y")

    with pytest.raises(UnsupportedError, match=r"Random.*draws random numbers"):
        load(write_graph(build))


def test_checks_prints_and_summaries_go(write_graph: Write, assert_same: Check) -> None:
    def build() -> None:
        x = x_of(4)
        with tf.control_dependencies([v1.Assert(tf.reduce_all(x > -9), [x])]):
            y = tf.identity(x, name="guarded")
        y = tf.debugging.check_numerics(y, "not a number")
        v1.summary.histogram("activations", y)
        y = tf.stop_gradient(tf.nn.relu(tf.raw_ops.Print(input=y, data=[y])))
        v1.train.Saver([v1.get_variable("step", (), use_resource=False)])
        tf.identity(y, name="y")
        v1.summary.histogram("answers", y)

    frozen = load(write_graph(build))
    assert (frozen.inputs, frozen.outputs) == (("x",), ("y",))
    assert {node.op for node in frozen.graph_def.node} == {"Placeholder", "Identity", "Relu"}
    assert not any(name.startswith("^") for node in frozen.graph_def.node for name in node.input)
    assert_same(frozen, to_onnx(frozen))


def test_an_output_may_be_a_check(write_graph: Write) -> None:
    path = write_graph(lambda: tf.nn.relu(tf.stop_gradient(tf.nn.tanh(x_of(4)), name="stop")))
    assert load(path, outputs=["stop"]).outputs == ("stop",)


@pytest.mark.parametrize("many", [True, False])
def test_a_queue_is_an_input(write_graph: Write, assert_same: Check, many: bool) -> None:
    def build() -> None:
        queue = tf.queue.FIFOQueue(8, [tf.float32, tf.int32], shapes=[(8, 8, 3) if many else (4, 8, 8, 3), ()])
        images, labels = queue.dequeue_many(4, name="batch") if many else queue.dequeue(name="batch")
        logits = tf.reduce_mean(tf.nn.conv2d(images, constant(3, 3, 3, 5), 1, "SAME"), [1, 2])
        v1.summary.scalar("hits", tf.reduce_sum(labels))
        tf.nn.softmax(logits, name="y")

    path = write_graph(build)
    frozen = load(path, outputs=["y"])
    assert frozen.input_shapes == {"batch": (None, 8, 8, 3)}
    assert_same(frozen, to_onnx(frozen))


def test_an_iterator_is_an_input_at_any_of_its_outputs(write_graph: Write, assert_same: Check) -> None:
    def build() -> None:
        data = tf.data.Dataset.from_tensor_slices((np.arange(4), constant(4, 8, 8, 3))).batch(2)
        _, images = v1.data.make_one_shot_iterator(data).get_next(name="next")
        tf.nn.relu(tf.nn.conv2d(images, constant(3, 3, 3, 5), 1, "SAME"), name="y")

    frozen = load(write_graph(build))
    assert (frozen.inputs, frozen.input_shapes) == (("next:1",), {"next:1": (None, 8, 8, 3)})
    model = to_onnx(frozen)
    assert_same(frozen, model)


def test_several_components_of_a_queue_are_listed(write_graph: Write) -> None:
    def build() -> None:
        queue = tf.queue.FIFOQueue(8, [tf.float32, tf.float32], shapes=[(4,), (4,)])
        a, b = queue.dequeue_many(4, name="batch")
        tf.add(a, b, name="y")

    path = write_graph(build)
    with pytest.raises(ModelError, match=r"give the inputs.*batch:0, batch:1"):
        load(path)
    assert load(path, inputs=["batch:0", "batch:1"]).inputs == ("batch", "batch:1")
    with pytest.raises(ModelError, match="reads 'batch:1' of a node that is cut"):
        load(path, inputs=["batch:0"])


def test_reading_files_is_refused_with_the_way_out(write_graph: Write) -> None:
    def build() -> None:
        image = tf.cast(tf.io.decode_png(v1.placeholder(tf.string, (), name="png"), 3), tf.float32, name="pixels")
        tf.nn.relu(tf.nn.conv2d(tf.reshape(image, (1, 8, 8, 3), name="image"), constant(3, 3, 3, 5), 1, "SAME"), name="y")

    path = write_graph(build)
    with pytest.raises(ModelError, match=r"DecodePng .* reads the data itself; name the tensor"):
        load(path)
    assert load(path, inputs=["image"]).input_shapes == {"image": (None, 8, 8, 3)}


LEARNING_PHASES = ("keras_learning_phase", "bn/keras_learning_phase", "is_training", "phase_train", "Model/training")


@pytest.mark.parametrize("v2_control_flow", [True, False])
@pytest.mark.parametrize("name", LEARNING_PHASES)
@pytest.mark.parametrize("default", [True, False, None])
def test_a_learning_phase_is_false(write_graph: Write, v2_control_flow: bool, name: str, default: bool | None) -> None:
    def build() -> None:
        x = x_of(4)
        phase = v1.placeholder(tf.bool, (), name) if default is None else v1.placeholder_with_default(default, (), name)
        inner = tf.cond(phase, lambda: x - 1, lambda: tf.cond(tf.logical_not(phase), lambda: x * 2, lambda: x / 0))
        tf.add(inner, 1, name="y")

    (v1.enable_control_flow_v2 if v2_control_flow else v1.disable_control_flow_v2)()
    try:
        path = write_graph(build)
    finally:
        v1.enable_control_flow_v2()
    frozen = load(path)
    x = constant(2, 4)
    assert frozen.inputs == ("x",)
    np.testing.assert_array_equal(frozen.run({"x": x})["y"], x * 2 + 1)
    assert not {"Switch", "Merge", "If", "StatelessIf"} & {node.op for node in frozen.graph_def.node}


def test_batch_norm_of_a_learning_phase_uses_its_moving_statistics(write_graph: Write, assert_same: Check) -> None:
    statistics = {key: np.abs(constant(5)) + 0.5 for key in ("scale", "offset", "mean", "variance")}

    def normalize(x: Any, training: bool) -> Any:
        if not training:
            return tf.raw_ops.FusedBatchNormV3(x=x, **statistics, is_training=False)[0]
        moving = {"mean": np.zeros(0, np.float32), "variance": np.zeros(0, np.float32)}
        return tf.raw_ops.FusedBatchNormV3(x=x, **(statistics | moving), is_training=True)[0]

    def build() -> None:
        x = x_of(4, 4, 5)
        phase = v1.placeholder(tf.bool, (), "is_training")
        tf.nn.relu(tf.cond(phase, lambda: normalize(x, True), lambda: normalize(x, False)), name="y")

    v1.disable_control_flow_v2()
    try:
        path = write_graph(build)
    finally:
        v1.enable_control_flow_v2()
    frozen = load(path)
    model = to_onnx(frozen)
    assert [node.op_type for node in model.graph].count("BatchNormalization") == 1
    assert_same(frozen, model)


def test_what_is_not_said_is_the_default(write_graph: Write) -> None:
    """A FusedBatchNorm without `is_training` is in training mode."""

    def build() -> None:
        tf.identity(
            tf.raw_ops.FusedBatchNorm(
                x=x_of(2, 2, 1), scale=[1.0], offset=[0.0], mean=np.zeros(0, np.float32), variance=np.zeros(0, np.float32)
            )[0],
            name="y",
        )

    def strip(graph_def: Any) -> None:
        next(node for node in graph_def.node if node.op == "FusedBatchNorm").attr.pop("is_training")

    with pytest.raises(UnsupportedError, match="training mode"):
        load(write_graph(build, strip), outputs=["y"])


def test_an_output_in_a_dead_branch_is_refused(write_graph: Write) -> None:
    def build() -> None:
        x = x_of(4)
        phase = v1.placeholder(tf.bool, (), "is_training")
        tf.cond(phase, lambda: tf.subtract(x, 1, name="trained"), lambda: x * 2)

    v1.disable_control_flow_v2()
    try:
        path = write_graph(build)
    finally:
        v1.enable_control_flow_v2()
    with pytest.raises(ModelError, match="'cond/trained:0' is in a branch that only training takes"):
        load(path, outputs=["cond/trained"])


@pytest.mark.parametrize(("v2_control_flow", "op"), [(True, "If"), (False, "Switch")])
def test_a_branch_that_depends_on_the_data_is_refused(write_graph: Write, v2_control_flow: bool, op: str) -> None:
    def build() -> None:
        x = x_of(4)
        tf.add(tf.cond(tf.reduce_mean(x) > 0, lambda: x * 2, lambda: x - 1), 1, name="y")

    (v1.enable_control_flow_v2 if v2_control_flow else v1.disable_control_flow_v2)()
    try:
        path = write_graph(build)
    finally:
        v1.enable_control_flow_v2()
    with pytest.raises(UnsupportedError, match=f"{op} 'cond.*depends on the data"):
        load(path, outputs=["y"])


def test_waiting_for_a_branch_that_depends_on_the_data_is_refused(write_graph: Write) -> None:
    """A control edge orders side effects, except where what it comes from may be dead."""

    def build() -> None:
        x = x_of(4)
        off, _ = tf.raw_ops.Switch(data=x, pred=tf.reduce_mean(x) > 0)
        with tf.control_dependencies([tf.identity(off, name="sometimes")]):
            one = tf.constant(np.ones(4, np.float32), name="one")
        tf.add(x, one, name="y")

    with pytest.raises(UnsupportedError, match="'one' waits for 'sometimes'"):
        load(write_graph(build), outputs=["y"])


@pytest.mark.parametrize(("v2_control_flow", "op"), [(True, "While"), (False, "Enter")])
def test_loops_are_refused(write_graph: Write, v2_control_flow: bool, op: str) -> None:
    def build() -> None:
        x = x_of(4)
        tf.identity(tf.while_loop(lambda i, _: i < 3, lambda i, a: (i + 1, a * 2), [tf.constant(0), x])[1], name="y")

    (v1.enable_control_flow_v2 if v2_control_flow else v1.disable_control_flow_v2)()
    try:
        path = write_graph(build)
    finally:
        v1.enable_control_flow_v2()
    with pytest.raises(UnsupportedError, match=rf"{op} .* is a loop"):
        load(path, outputs=["y"])


def test_functions_are_inlined(write_graph: Write, assert_same: Check) -> None:
    @tf.function
    def inner(a: Any) -> Any:
        return tf.nn.relu(a) * 3.0, a + 1.0

    @tf.function
    def outer(a: Any) -> Any:
        first, second = inner(a)
        return first - second, inner(second)[0]

    def build() -> None:
        first, second = outer(x_of(4))
        tf.add(first, second, name="y")

    with tf.Graph().as_default() as graph:
        build()
    frozen = freeze_graph_def(graph.as_graph_def(), "net", "net", None, None, None)
    assert frozen.outputs == ("y",)
    assert not frozen.graph_def.library.function
    assert_same(frozen, to_onnx(frozen))
    asked = freeze_graph_def(graph.as_graph_def(), "net", "net", None, ["PartitionedCall:1"], None)
    assert asked.outputs == ("PartitionedCall:1",)
    assert_same(asked, to_onnx(asked))


def test_a_call_may_be_the_end(write_graph: Write) -> None:
    frozen = load(write_graph(lambda: tf.function(tf.function(lambda b: tf.nn.relu(b) + 1))(x_of(4))))
    x = constant(2, 4)
    np.testing.assert_array_equal(next(iter(frozen.run({"x": x}).values())), np.maximum(x, 0) + 1)


@pytest.fixture
def train() -> Callable[..., None]:
    """Adds what a training program adds to a network."""

    def add(logits: Any, labels: Any) -> None:
        loss = v1.losses.softmax_cross_entropy(labels, logits)
        hits = tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1))
        tf.reduce_mean(tf.cast(hits, tf.float32), name="accuracy")
        step = v1.train.get_or_create_global_step()
        v1.train.MomentumOptimizer(0.1, 0.9).minimize(loss, step)
        tf.add(step, 1, name="counter")
        v1.summary.scalar("loss", loss)

    return add


@pytest.mark.parametrize("queue", [False, True])
@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([], "nodes in front of a loss: logits. Received"),
        (["probabilities"], None),
        (["aux", "probabilities"], "nodes that nobody reads: aux, probabilities. Received"),
    ],
)
def test_the_ends_of_a_training_graph(
    tmp_path: Path, train: Callable[..., None], queue: bool, heads: list[str], message: str | None
) -> None:
    """Losses, accuracies, counters, gradients and what assertions look at are no answers."""
    with quiet(), tf.Graph().as_default() as graph:
        if queue:
            images, classes = v1.train.slice_input_producer([tf.zeros((9, 8)), tf.zeros((9, 3))])
            x, labels = v1.train.batch([images, classes], 2, name="batch")
        else:
            x, labels = x_of(8), x_of(3, name="labels")
        weights = v1.get_variable("weights", (8, 3), initializer=v1.constant_initializer(constant(8, 3)), use_resource=False)
        hidden = tf.nn.relu(tf.matmul(x, weights), name="hidden")
        logits = tf.add(tf.matmul(hidden, constant(3, 3)), constant(3), name="logits")
        for head in heads:
            tf.nn.softmax(hidden if head == "aux" else logits, name=head)
        train(logits, labels)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(tmp_path / "m.ckpt"))
    assert any(node.name.startswith("gradients/") for node in graph.as_graph_def().node)
    if message is None:
        assert load(tmp_path).outputs == tuple(heads)
    else:
        with pytest.raises(ModelError, match=message):
            load(tmp_path)
        assert load(tmp_path, outputs=["logits"]).inputs == ("batch",) if queue else ("x",)


def test_an_integer_that_is_left_out_is_listed_where_one_number_remains(write_graph: Write) -> None:
    def build() -> None:
        x = tf.matmul(x_of(4), constant(4, 3))
        tf.argmax(x, 1, name="classes")
        tf.nn.softmax(x, name="scores")

    with pytest.raises(ModelError, match=r"nobody reads: classes, scores\. Received"):
        load(write_graph(build))


def test_shapes_of_ends_are_found_without_reading_files(write_graph: Write, tmp_path: Path) -> None:
    """TensorFlow computes constants while it infers shapes; were the file read, `a` would be known to be a scalar."""
    (tmp_path / "rank").write_text("0")

    def build() -> None:
        x = tf.matmul(x_of(4), constant(4, 3))
        rank = tf.strings.to_number(tf.io.read_file(str(tmp_path / "rank")), tf.int32)
        tf.reshape(tf.reduce_sum(x), tf.fill([rank], 1), name="a")
        tf.reduce_sum(x, name="loss")
        tf.nn.softmax(x, name="scores")

    with pytest.raises(ModelError, match=r"nobody reads: a, scores\. Received"):
        load(write_graph(build))


@pytest.mark.parametrize(
    "nodes",
    [
        [("s", "Switch", ["x"])],
        [("i", "Identity", []), ("s", "Switch", ["x", "i"])],
        [("i", "Identity", ["j"]), ("j", "Identity", ["i"]), ("s", "Switch", ["x", "i"])],
    ],
)
def test_a_malformed_graph_has_no_flag_that_starts_training(nodes: list[tuple[str, str, list[str]]]) -> None:
    """A SavedModel is asked for its flags before it is checked."""
    graph_def = v1.GraphDef()
    for name, op, inputs in nodes:
        graph_def.node.add(name=name, op=op, input=inputs)
    graph_def.node.add(name="y", op="FusedBatchNormV3", input=["s:1"]).attr["is_training"].b = True
    assert learning_phases(graph_def) == set()
