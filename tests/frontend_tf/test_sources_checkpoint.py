"""Graphs with a checkpoint: every kind of variable and Saver gives the numbers of its session; what is missing is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.frontend_tf.quiet import quiet
from tqt_onnx.ir import ModelError, UsageError

v1 = tf.compat.v1
X = np.random.default_rng(3).normal(size=(3, 6, 6, 2)).astype(np.float32)
Array = np.ndarray[Any, Any]


def plain() -> None:
    """Convolution, batch norm and logits with variables of every initial value but zero."""
    x = v1.placeholder(tf.float32, (None, 6, 6, 2), name="input")
    x = tf.nn.conv2d(x, variable("conv/weights", (3, 3, 2, 4)), 2, "SAME", name="conv/Conv2D")
    statistics = [variable(f"bn/{name}", (4,), 0.5) for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    x, *_ = v1.nn.fused_batch_norm(x, *statistics, is_training=False, name="bn/FusedBatchNorm")
    x = tf.reshape(tf.nn.relu(x), [-1, 36])
    tf.add(tf.matmul(x, variable("logits/weights", (36, 5))), variable("logits/biases", (5,)), name="logits/out")


def variable(name: str, shape: tuple[int, ...], low: float = -1.0, **options: Any) -> Any:
    value = np.random.default_rng(len(name)).uniform(low, 1.5, shape).astype(np.float32)
    return v1.get_variable(name, shape, initializer=v1.constant_initializer(value), **options)


def save(folder: Path, build: Callable[[], Any], prefix: str = "my_model.ckpt", resource: bool = False, **saver: Any) -> Array:
    """Builds, initializes, saves graph (`my_model.pb`, `prefix.meta`) and variables; returns what the session computes on X."""
    folder.mkdir(exist_ok=True)
    with quiet(), tf.Graph().as_default() as graph, v1.variable_scope("", use_resource=resource):
        result = build()
        saving = v1.train.Saver(**{key: value(graph) for key, value in saver.items()}) if result is None else result
        with unoptimized() as session:
            session.run(v1.global_variables_initializer())
            saving.save(session, str(folder / prefix))
            tf.io.write_graph(graph, str(folder), "my_model.pb", as_text=False)
            return session.run("logits/out:0", {"input:0": X})


def unoptimized() -> Any:
    """Grappler folds batch norms in a session, too; without it the numbers are the same to the last bit."""
    config = v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    return v1.Session(config=config)


def computed(*args: Any, **kwargs: Any) -> Array:
    (result,) = load(*args, outputs=["logits/out"], **kwargs).run({"input": X}).values()
    return result


@pytest.mark.parametrize("resource", [False, True])
def test_every_way_to_name_it(tmp_path: Path, resource: bool) -> None:
    expected = save(tmp_path, plain, resource=resource)
    elsewhere = shutil.copytree(
        tmp_path, tmp_path.parent / f"{tmp_path.name}_graph", ignore=shutil.ignore_patterns("*ckpt*", "check*")
    )
    prefix = tmp_path / "my_model.ckpt"
    for source, checkpoint in [
        (tmp_path, None),
        (tmp_path / "my_model.pb", None),
        (tmp_path / "my_model.ckpt.meta", None),
        (prefix, None),
        (elsewhere / "my_model.pb", prefix),
        (elsewhere / "my_model.pb", f"{prefix}.index"),
        (elsewhere / "my_model.pb", f"{prefix}.data-00000-of-00001"),
        (elsewhere / "my_model.pb", tmp_path),
        (elsewhere / "my_model.pb", tmp_path / "checkpoint"),
        (elsewhere, prefix),
    ]:
        assert np.array_equal(computed(source, checkpoint=checkpoint), expected), source
    with pytest.raises(ModelError, match="not frozen"):
        load(elsewhere / "my_model.pb")


@pytest.mark.parametrize("resource", [False, True])
def test_variables_become_constants_of_their_names_and_batch_norms_arrive(
    tmp_path: Path, resource: bool, assert_same: Callable[..., None]
) -> None:
    save(tmp_path, plain, resource=resource)
    frozen = load(tmp_path)
    assert (frozen.inputs, frozen.outputs, frozen.name) == (("input",), ("logits/out",), "my_model")
    constants = {node.name for node in frozen.graph_def.node if node.op == "Const"}
    assert {"conv/weights", "bn/gamma", "logits/biases"} <= constants
    assert not any("/variable" in node.name or node.op.startswith("Var") for node in frozen.graph_def.node)
    model = to_onnx(frozen)
    assert "BatchNormalization" in {node.op_type for node in model.graph}
    assert_same(frozen, model)


def test_text_graphs(tmp_path: Path) -> None:
    expected = save(tmp_path, plain)
    graph_def = v1.GraphDef.FromString((tmp_path / "my_model.pb").read_bytes())
    meta = v1.MetaGraphDef.FromString((tmp_path / "my_model.ckpt.meta").read_bytes())
    for name, content in [("my_model.pbtxt", graph_def), ("text.pb", graph_def), ("meta.pbtxt", meta), ("text.meta", meta)]:
        (tmp_path / name).write_text(str(content))
        assert np.array_equal(computed(tmp_path / name), expected), name
    (tmp_path / "meta.pb").write_bytes(meta.SerializeToString())
    assert np.array_equal(computed(tmp_path / "meta.pb"), expected)


def test_newest_checkpoint_and_one_of_another_machine(tmp_path: Path) -> None:
    first = save(tmp_path, plain, prefix="model-1")

    def doubled() -> Any:
        plain()
        return _Doubling({"conv/weights": 2.0})

    second = save(tmp_path, doubled, prefix="model-20")
    assert not np.array_equal(first, second)
    (tmp_path / "my_model.pb").unlink()
    assert np.array_equal(computed(tmp_path), second)
    assert np.array_equal(computed(tmp_path / "model-1.meta"), first)
    for path in ("/home/someone/train/model-1", r"C:\train\model-1", "model-1"):
        escaped = path.replace("\\", "\\\\")
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{escaped}"\n')
        assert np.array_equal(computed(tmp_path), first)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model-3"\n')
    with pytest.raises(ModelError, match=r"'model-3' that is not in its folder.*Received: model-1, model-20"):
        load(tmp_path)
    (tmp_path / "checkpoint").write_text("no such text")
    with pytest.raises(ModelError, match="checkpoint: cannot be read"):
        load(tmp_path)


class _Doubling:
    """A Saver that first changes some variables."""

    def __init__(self, factors: dict[str, float]) -> None:
        self.factors = factors
        self.saver = v1.train.Saver()

    def save(self, session: Any, path: str) -> None:
        for variable in v1.global_variables():
            factor = self.factors.get(variable.op.name, 1.0)
            variable.load(variable.eval(session) * factor, session)
        self.saver.save(session, path)


@pytest.mark.parametrize("resource", [False, True])
@pytest.mark.parametrize("with_saver", [True, False])
def test_partitioned_variables(tmp_path: Path, resource: bool, with_saver: bool) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, (None, 6, 6, 2), name="input")
        draw = v1.random_uniform_initializer(seed=1)
        weights = v1.get_variable("big/weights", (72, 5), initializer=draw, partitioner=v1.fixed_size_partitioner(3))
        tf.matmul(tf.reshape(x, [-1, 72]), tf.convert_to_tensor(weights), name="logits/out")

    expected = save(tmp_path, build, resource=resource)
    if with_saver:
        assert np.array_equal(computed(tmp_path / "my_model.pb"), expected)
    else:  # the graph alone does not say which slice a part is
        graph_def = v1.GraphDef.FromString((tmp_path / "my_model.pb").read_bytes())
        kept = [node for node in graph_def.node if not node.name.startswith("save/")]
        (tmp_path / "bare.pb").write_bytes(v1.GraphDef(node=kept, versions=graph_def.versions).SerializeToString())
        with pytest.raises(ModelError, match="'big/weights/part_0' and 2 more is not in the checkpoint"):
            computed(tmp_path / "bare.pb")


def averaged() -> Any:
    """A training graph with the averages that `ExponentialMovingAverage` keeps."""
    plain()
    for one in v1.global_variables():
        average = variable(f"{one.op.name}/ExponentialMovingAverage", one.shape, trainable=False)
        v1.assign_sub(average, (average - one) * 0.5)
    return _Doubling({"conv/weights": 3.0})


def test_moving_averages(tmp_path: Path) -> None:
    """A training graph gives its plain weights; a graph whose Saver restores averages into the weights gives those."""
    expected = save(tmp_path / "train", averaged)
    assert np.array_equal(computed(tmp_path / "train"), expected)

    def evaluation() -> Any:
        plain()
        return v1.train.Saver(
            {f"{one.op.name}/ExponentialMovingAverage": one for one in v1.global_variables()[:1]}
            | {one.op.name: one for one in v1.global_variables()[1:]}
        )

    save(tmp_path / "eval", evaluation)
    prefix = tmp_path / "train" / "my_model.ckpt"
    averages = computed(tmp_path / "eval" / "my_model.pb", checkpoint=prefix)
    reader = tf.train.load_checkpoint(str(prefix))
    with tf.Graph().as_default(), unoptimized() as session:
        plain()
        session.run(v1.global_variables_initializer())
        v1.global_variables()[0].load(reader.get_tensor("conv/weights/ExponentialMovingAverage"), session)
        assert np.array_equal(averages, session.run("logits/out:0", {"input:0": X}))
    assert not np.array_equal(averages, expected)


@pytest.mark.parametrize("resource", [False, True])
def test_optimizer_variables_are_not_needed(tmp_path: Path, resource: bool) -> None:
    def build() -> Any:
        plain()
        loss = tf.reduce_sum(v1.get_default_graph().get_tensor_by_name("logits/out:0"))
        v1.train.AdamOptimizer(0.01).minimize(loss, name="train")
        names = ("conv", "bn", "logits")
        return v1.train.Saver([one for one in v1.global_variables() if "Adam" not in one.name and one.name.startswith(names)])

    expected = save(tmp_path, build, resource=resource)
    assert np.array_equal(computed(tmp_path / "my_model.pb"), expected)
    assert np.array_equal(computed(tmp_path / "my_model.ckpt.meta"), expected)


def test_missing_variables_are_named(tmp_path: Path) -> None:
    def build() -> Any:
        plain()
        return v1.train.Saver([one for one in v1.global_variables() if "gamma" not in one.name and "biases" not in one.name])

    save(tmp_path, build)
    with pytest.raises(ModelError, match=r"variable 'bn/gamma' and 1 more is not in the checkpoint .*my_model\.ckpt"):
        computed(tmp_path)
    frozen = load(tmp_path, outputs=["conv/Conv2D"])  # does not depend on them
    assert np.ptp(frozen.run({"input": X})["conv/Conv2D"]) > 0


def test_variables_of_another_network(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, (None, 6, 6, 2), name="input")
        weights = variable("conv/weights", (1, 1, 2, 4))
        tf.identity(tf.nn.conv2d(x, weights, 1, "SAME"), name="logits/out")

    save(tmp_path / "one", plain)
    save(tmp_path / "other", build)
    with pytest.raises(ModelError, match=r"'conv/weights' is float32 \[3, 3, 2, 4\].*Received: float32 \[1, 1, 2, 4\]"):
        computed(tmp_path / "one" / "my_model.pb", checkpoint=tmp_path / "other")


def test_damaged_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, plain)
    data, index = tmp_path / "my_model.ckpt.data-00000-of-00001", tmp_path / "my_model.ckpt.index"
    whole = data.read_bytes()
    for cut in (0, len(whole) // 2):
        data.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=r"my_model\.ckpt: variable '.*' cannot be read"):
            computed(tmp_path)
    data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(ModelError, match="cannot be read"):
        computed(tmp_path)
    data.rename(tmp_path / "my_model.ckpt.data-00001-of-00003")
    with pytest.raises(ModelError, match=r"missing shard my_model\.ckpt\.data-00000-of-00003"):
        computed(tmp_path)
    (tmp_path / "my_model.ckpt.data-00001-of-00003").unlink()
    with pytest.raises(ModelError, match=r"missing shard my_model\.ckpt\.data-00000-of-00001; .*Received: none"):
        computed(tmp_path)
    index.write_bytes(index.read_bytes()[:20])
    data.write_bytes(whole)
    with pytest.raises(ModelError, match="not a complete checkpoint"):
        computed(tmp_path)
    index.unlink()
    with pytest.raises(ModelError, match=r"my_model\.ckpt"):
        computed(tmp_path / "my_model.ckpt.meta")


def test_wrong_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, plain)
    for wrong in ("none", "none.index", tmp_path.parent / "nowhere"):
        with pytest.raises(ModelError, match="no such checkpoint"):
            computed(tmp_path, checkpoint=tmp_path / wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no checkpoint"):
        computed(tmp_path, checkpoint=tmp_path / "empty")
    with pytest.raises(ModelError, match="not a complete checkpoint"):
        computed(tmp_path, checkpoint=tmp_path / "my_model.pb")
    with pytest.raises(UsageError, match="signature"):
        load(tmp_path, signature="serving_default")
    tf.io.write_graph(tf.Graph(), str(tmp_path), "empty.pb", as_text=False)
    with tf.Graph().as_default() as graph:
        tf.nn.relu(v1.placeholder(tf.float32, (None, 2), name="x"), name="y")
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    assert load(tmp_path / "frozen.pb").outputs == ("y",)
    with pytest.raises(UsageError, match="has no variables"):
        load(tmp_path / "frozen.pb", checkpoint=tmp_path)


def test_nothing_of_the_graph_is_run(tmp_path: Path) -> None:
    """A restore node that points at another file, and an initializer that would fail, stay unread."""
    expected = save(tmp_path, plain)
    graph_def = v1.GraphDef.FromString((tmp_path / "my_model.pb").read_bytes())
    for node in graph_def.node:
        if node.name == "save/Const":
            node.attr["value"].tensor.string_val[:] = [b"/nowhere/model"]
    (tmp_path / "my_model.pb").write_bytes(graph_def.SerializeToString())
    assert np.array_equal(computed(tmp_path / "my_model.pb"), expected)


@pytest.mark.parametrize(("resource", "op"), [(False, "Switch"), (True, "Switch"), (True, "If")])
@pytest.mark.parametrize("predicate", ["default", "variable"])
def test_a_switch_between_training_and_inference(tmp_path: Path, resource: bool, op: str, predicate: str) -> None:
    """Variables read in a branch; the predicate may be a variable itself, and then its value in the checkpoint counts."""

    def build() -> None:
        x = v1.placeholder(tf.float32, (None, 6, 6, 2), name="input")
        if predicate == "default":
            training = v1.placeholder_with_default(False, (), name="is_training")
        else:
            training = v1.get_variable("is_training", (), tf.bool, initializer=v1.zeros_initializer(), trainable=False)
        x = tf.nn.conv2d(x, variable("conv/weights", (3, 3, 2, 4)), 2, "SAME")
        gamma, beta, mean, spread = (variable(f"bn/{name}", (4,), 0.5) for name in ("gamma", "beta", "mean", "variance"))

        def train() -> Any:
            y, batch_mean, _ = v1.nn.fused_batch_norm(x, gamma, beta, is_training=True)
            with tf.control_dependencies([v1.assign(mean, batch_mean)]):
                return tf.identity(y)

        def infer() -> Any:  # a branch in a branch, whose predicate is known in there only
            y = v1.nn.fused_batch_norm(x, gamma, beta, mean, spread, is_training=False)[0]
            return v1.cond(training, lambda: y, lambda: y * gamma)

        tf.nn.relu(v1.cond(training, train, infer), name="logits/out")
        assert op in {operation.type.removeprefix("Stateless") for operation in x.graph.get_operations()}

    v1.enable_control_flow_v2() if op == "If" else v1.disable_control_flow_v2()
    try:
        expected = save(tmp_path, build, resource=resource)
    finally:
        v1.enable_control_flow_v2()
    frozen = load(tmp_path, inputs=["input"], outputs=["logits/out"])
    assert np.array_equal(frozen.run({"input": X})["logits/out"], expected)
    assert "BatchNormalization" in {node.op_type for node in to_onnx(frozen).graph}


def test_checkpoints_of_the_first_format(tmp_path: Path) -> None:
    """One file without suffix: `my_model.ckpt` itself."""

    def build() -> Any:
        plain()
        return v1.train.Saver(write_version=v1.train.SaverDef.V1)

    expected = save(tmp_path, build)
    assert (tmp_path / "my_model.ckpt").is_file() and not (tmp_path / "my_model.ckpt.index").exists()
    for source, checkpoint in [("my_model.ckpt.meta", None), ("", None), ("my_model.pb", tmp_path / "my_model.ckpt")]:
        assert np.array_equal(computed(tmp_path / source, checkpoint=checkpoint), expected)


def test_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` and `..` have no name that something could lie beside."""
    expected = save(tmp_path, plain)
    (tmp_path / "inner").mkdir()
    for folder, source in ((tmp_path, "."), (tmp_path / "inner", ".."), (tmp_path, "inner/..")):
        monkeypatch.chdir(folder)
        assert np.array_equal(computed(source), expected)
        assert np.array_equal(computed(tmp_path / "my_model.pb", checkpoint=source), expected)
    with pytest.raises(ModelError, match=r"give the folder\. Received: 'checkpoint'"):
        load(tmp_path / "checkpoint")
