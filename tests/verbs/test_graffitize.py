"""Graffitist's command lines, typed as they are typed there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tqt_onnx.cli import run
from tqt_onnx.ir import load, quantizers_of
from tqt_onnx.verbs.graffitize import graffitize

FLOAT = ["fix_input_shape", "fold_batch_norms", "remove_training_nodes", "strip_unused_nodes", "preprocess_layers"]
QUANTIZE = (
    "quantize(calibrate_quant_layers=True, weight_bits=-4, activation_bits=-8, layer_bits=-16, relu_bits=8, avgpool_bits=8, "
    "avgpool_reciprocal_bits=8, first_layer=conv1/Conv2D, last_layer=fc/Conv2D)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slim-like frozen network with a placeholder of unknown shape, and its calibration set beside it."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("byom")
    rng = np.random.default_rng(7)
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, None, name="input")

        def layer(name: str, x: tf.Tensor, filters: int) -> tf.Tensor:
            weight = tf.constant(
                rng.normal(size=(3, 3, 4 if name != "conv1" else 3, filters)).astype(np.float32) / 5, name=f"{name}/w"
            )
            return tf.nn.conv2d(x, weight, 1, "SAME", name=f"{name}/Conv2D")

        one = layer("conv1", x, 4)
        scale, shift, mean = (tf.constant(rng.uniform(0.5, 1.5, 4).astype(np.float32)) for _ in range(3))
        one = tf.nn.relu6(v1.nn.fused_batch_norm(one, scale, shift, mean, scale, is_training=False, name="conv1/bn")[0])
        two = tf.nn.relu(layer("conv2", one, 4))
        pooled = tf.reduce_mean(two, [1, 2], keepdims=True, name="pool")
        last = tf.constant(rng.normal(size=(1, 1, 4, 5)).astype(np.float32), name="fc/w")
        logits = tf.nn.bias_add(tf.nn.conv2d(pooled, last, 1, "SAME", name="fc/Conv2D"), tf.ones(5), name="fc/BiasAdd")
        tf.squeeze(logits, [1, 2], name="logits")
    (folder / "my_model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    np.save(folder / "calibration_set.npy", rng.normal(size=(8, 8, 8, 3)).astype(np.float32))
    return folder


def command(folder: Path, out: Path, *transforms: str) -> list[str]:
    ends = ["--inputs", "input", "--outputs", "logits", "--input_shape", "8,8,3"]
    return ["graffitize", "--in_graph", str(folder / "my_model.pb"), "--out_graph", str(out), *ends, "--transforms", *transforms]


def test_recipe_1_writes_the_optimized_float_network(folder: Path, tmp_path: Path) -> None:
    assert run(command(folder, tmp_path / "opt.pb", *FLOAT)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["opt.onnx"]
    model = load(tmp_path / "opt.onnx")
    assert not any(node.op_type == "BatchNormalization" for node in model.graph)
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["input", "logits"]


def test_recipe_2_is_quantize_with_the_methods_of_the_paper(folder: Path, tmp_path: Path) -> None:
    assert run(command(folder, tmp_path / "quant.onnx", *FLOAT, QUANTIZE)) == 0
    assert run(command(folder, tmp_path / "opt.onnx", *FLOAT)) == 0
    ours = [
        "--calibration",
        str(folder / "calibration_set.npy"),
        "--method",
        "klj",
        "--weight-method",
        "max",
        "--weight_bits",
        "-4",
    ]
    assert run(["quantize", str(tmp_path / "opt.onnx"), "-o", str(tmp_path / "ours.onnx"), *ours]) == 0
    assert (tmp_path / "quant.onnx").read_bytes() == (tmp_path / "ours.onnx").read_bytes()
    graph = quantizers_of(load(tmp_path / "quant.onnx"))
    assert graph is not None
    assert [quantizer.bits for quantizer in graph.quantizers if quantizer.role == "weight"] == [8, 4, 8]
    assert run(["check", str(tmp_path / "quant.onnx"), "--data", str(folder / "calibration_set.npy")]) == 0


def test_batch_norms_are_kept_for_training(folder: Path, tmp_path: Path) -> None:
    kept = [item.replace("fold_batch_norms", "fold_batch_norms(is_training=True)") for item in FLOAT]
    assert run(command(folder, tmp_path / "train.onnx", *kept)) == 0
    assert sum(node.op_type == "BatchNormalization" for node in load(tmp_path / "train.onnx").graph) == 1


def test_recipe_3_is_a_keras_model_that_comes_back_quantized(folder: Path, tmp_path: Path) -> None:
    import keras

    kept = [item.replace("fold_batch_norms", "fold_batch_norms(is_training=True)") for item in FLOAT]
    training = QUANTIZE.replace("quantize(", "quantize(is_training=True, ")
    assert run(command(folder, tmp_path / "train.pb", *kept, training)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["train.keras"]
    network = keras.models.load_model(tmp_path / "train.keras")
    assert len(network.groups) > 5
    assert not network.statistics_frozen
    assert run(["quantize", "--from-trained", str(tmp_path / "train.keras"), "-o", str(tmp_path / "quant.onnx")]) == 0
    graph = quantizers_of(load(tmp_path / "quant.onnx"))
    assert graph is not None
    assert [q.bits for q in graph.quantizers if q.role == "weight"] == [8, 4, 8]


def test_only_the_file_that_is_written_can_be_in_the_way(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = QUANTIZE.replace("quantize(", "quantize(is_training=True, ")
    (tmp_path / "net.keras").write_bytes(b"a source")
    assert run(command(folder, tmp_path / "net.onnx", *FLOAT)) == 0  # ONNX: the .keras file beside it does not matter
    assert run(command(folder, tmp_path / "net.onnx", *FLOAT, training)) == 2
    assert "net.keras: exists; give another name, or --force" in capsys.readouterr().err

    def too_late(*_: object, **__: object) -> None:
        pytest.fail("read")

    monkeypatch.setattr("tqt_onnx.verbs.graffitize.graffitize", too_late)
    for option, name in (("--in_graph", "net.keras"), ("--calibration", "net.keras"), ("--exclude", "net.keras")):
        words = command(folder, tmp_path / "net.onnx", *FLOAT, training)
        assert run([words[0], *words[1:], option, str(tmp_path / name), "--force"]) == 2
        assert "net.keras: is the input too" in capsys.readouterr().err
    (tmp_path / "net.onnx").write_bytes(b"a source")
    assert run([*command(folder, tmp_path / "net.pb", *FLOAT), "--in_graph", str(tmp_path / "net.onnx"), "--force"]) == 2
    assert "net.onnx: is the input too" in capsys.readouterr().err
    assert (tmp_path / "net.keras").read_bytes() == (tmp_path / "net.onnx").read_bytes() == b"a source"


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([*FLOAT, "quantise(weight_bits=-8)"], "close names: quantize"),
        ([*FLOAT, "quantize(bits=8)"], "quantize: an option of weight_bits, "),
        ([*FLOAT, "quantize(weight_bits=eight)"], "weight_bits must be a whole number"),
        ([*FLOAT, "quantize(weight_bits=-9)"], "weight bits must be 2 to 8"),
        ([*FLOAT, "quantize(is_training=Yes)"], "is_training must be True or False"),
        (["quantize(weight_bits=-8)", *FLOAT], "behind the other transforms"),
    ],
)
def test_what_is_not_understood_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], transforms: list[str], message: str
) -> None:
    assert run(command(folder, tmp_path / "out.onnx", *transforms)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_calibration_set_is_missed_by_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "my_model.pb").write_bytes((folder / "my_model.pb").read_bytes())
    with pytest.raises(Exception, match=r"calibration_set\.npy is expected"):
        graffitize(tmp_path / "my_model.pb", "quantize()", input_shape=(8, 8, 3))
