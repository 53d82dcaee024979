"""What every tool of this kind is fed sooner or later, one test each; the other files of this folder go into detail."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bad_files import QUANTIZE, chain, dense_network, fan, image_network, ladder, write
from onnx import TensorProto, helper

from tqt_onnx.cli import run
from tqt_onnx.ir import load, quantizers_of

Refused = Callable[..., str]
node = helper.make_node


def graph_def(build: Callable[[Any], object], path: Path) -> Path:
    """A frozen graph with the placeholder `x`; `build` gets TensorFlow."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        build(tf)
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def test_an_unknown_operator_is_named_with_its_node(refused: Refused, tmp_path: Path) -> None:
    proto = dense_network()
    proto.graph.node[1].op_type = "Frobnicate"
    write(tmp_path / "m.onnx", proto)
    for command in ("convert {t}/m.onnx -o {t}/o.onnx", "inspect {t}/m.onnx"):
        line = refused(command)
        assert "m.onnx" in line and "Frobnicate" in line and "'relu'" in line and "expected" in line

    def unknown(tf: Any) -> None:
        tf.nn.relu(tf.compat.v1.placeholder(tf.float32, [None, 3], name="x"), name="odd")

    graph = graph_def(unknown, tmp_path / "g.pb")
    graph.write_bytes(graph.read_bytes().replace(b"Relu", b"Frob"))
    line = refused("convert {t}/g.pb -o {t}/o.onnx")
    assert "'Frob'" in line and "'odd'" in line

    def without_counterpart(tf: Any) -> None:
        tf.raw_ops.Betainc(
            a=tf.constant(1.0), b=tf.constant(1.0), x=tf.compat.v1.placeholder(tf.float32, [None, 3], "x"), name="odd"
        )

    graph_def(without_counterpart, tmp_path / "b.pb")
    line = refused("convert {t}/b.pb -o {t}/o.onnx")
    assert "'Betainc'" in line and "'odd'" in line


def test_a_missing_checkpoint_shard(refused: Refused, tmp_path: Path) -> None:
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        w = tf.compat.v1.get_variable("w", [3, 2], use_resource=False)
        tf.matmul(x, w, name="y")
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver()
        saver.save(session, str(tmp_path / "model.ckpt"))
    (shard,) = tmp_path.glob("model.ckpt.data-*")
    assert run(["convert", f"{tmp_path}/model.ckpt.meta", "-o", f"{tmp_path}/whole.onnx"]) == 0
    (tmp_path / "whole.onnx").unlink()
    shard.unlink()
    line = refused("convert {t}/model.ckpt.meta -o {t}/o.onnx")
    assert shard.name in line


def test_a_wrong_output_name_offers_close_ones(refused: Refused, sources: Path) -> None:
    line = refused("convert {s}/net.pb -o {t}/o.onnx --outputs net/relu6/Relu", s=sources)
    assert "'net/relu6/Relu'" in line and "net/relu6/Relu6" in line
    assert "image" in refused("convert {s}/net.pb -o {t}/o.onnx --inputs imagine", s=sources)


def arrays() -> dict[str, tuple[Any, str]]:
    good = np.ones((8, 3), np.float32)
    nan, inf = good.copy(), good.copy()
    nan[5, 1], inf[7, 2] = np.nan, -np.inf
    return {
        "of the wrong width": (np.ones((8, 4), np.float32), "[N, 3] is expected. Received: [8, 4]"),
        "of the wrong rank": (np.ones((8, 3, 1), np.float32), "[N, 3] is expected. Received: [8, 3, 1]"),
        "of text": (np.array([["a", "b", "c"]]), "numbers are expected. Received: dtype <U1"),
        "of complex numbers": (good.astype(np.complex64), "numbers are expected. Received: dtype complex64"),
        "empty": (good[:0], "non-empty array [N, 3] is expected. Received: [0, 3]"),
        "with a NaN": (nan, "row 5"),
        "with an Inf": (inf, "row 7"),
    }


@pytest.mark.parametrize("kind", arrays())
def test_a_calibration_array(refused: Refused, tmp_path: Path, dense: Path, kind: str) -> None:
    array, says = arrays()[kind]
    np.save(tmp_path / "bad.npy", array)
    line = refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/bad.npy", d=dense)
    assert "bad.npy" in line and says in line


def test_all_zero_weights_work_with_a_warning(tmp_path: Path, dense: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "m.onnx", dense_network(weights=np.zeros((3, 2))))
    assert run(f"quantize {tmp_path}/m.onnx -o {tmp_path}/q.onnx --calibration {dense}/x.npy".split()) == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(text.startswith("w: nothing but zeros") and "Q6" in text for text in warnings), warnings
    graph = quantizers_of(load(tmp_path / "q.onnx"))
    assert graph is not None and graph.decided
    (weight,) = (quantizer for quantizer in graph.quantizers if quantizer.id == "w")
    assert weight.exponent == -7  # the threshold is 1
    assert run(["check", f"{tmp_path}/q.onnx", "--data", f"{dense}/x.npy"]) == 0


def test_a_truncated_pb(refused: Refused, tmp_path: Path, sources: Path) -> None:
    whole = (sources / "net.pb").read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pb").write_bytes(whole[:size])
        assert "cut.pb" in refused("convert {t}/cut.pb -o {t}/o.onnx")


def test_a_text_file_called_onnx(refused: Refused, tmp_path: Path, dense: Path) -> None:
    (tmp_path / "notes.onnx").write_text("Remember to export the model.\n" * 20)
    for command in (
        "convert {t}/notes.onnx -o {t}/o.onnx",
        "inspect {t}/notes.onnx",
        "quantize {t}/notes.onnx -o {t}/o.onnx --calibration {d}/x.npy",
        "check {t}/notes.onnx --data {d}/x.npy",
        "evaluate {t}/notes.onnx --data {d}/xy.npz",
    ):
        line = refused(command, d=dense)
        assert "notes.onnx: not an ONNX" in line and "a binary .onnx model is expected" in line


def test_an_opset_or_ir_version_that_is_too_new(refused: Refused, tmp_path: Path, dense: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    write(tmp_path / "opset.onnx", dense_network(opset=newest + 1))
    write(tmp_path / "ir.onnx", dense_network(ir_version=onnx.IR_VERSION + 1))
    line = refused("convert {t}/opset.onnx -o {t}/o.onnx")
    assert f"an opset of 7 to {newest} is expected. Received: {newest + 1}" in line
    line = refused("convert {t}/ir.onnx -o {t}/o.onnx")
    assert f"an IR version of 1 to {onnx.IR_VERSION} is expected. Received: {onnx.IR_VERSION + 1}" in line
    line = refused("quantize {t}/opset.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)
    assert "opset 21 is expected; `convert` writes it" in line


def test_dynamic_spatial_shapes(refused: Refused, tmp_path: Path) -> None:
    weight = np.ones((2, 2, 3, 3), np.float32)
    write(tmp_path / "m.onnx", image_network([node("Conv", ["x", "w"], ["y"])], {"w": weight}, ("N", 2, "H", "W")))
    line = refused("convert {t}/m.onnx -o {t}/o.onnx")
    assert "'x'" in line and "[N, 2, H, W]" in line and "--input-shape" in line
    assert run(["convert", f"{tmp_path}/m.onnx", "-o", f"{tmp_path}/o.onnx", "--input-shape", "2,6,6"]) == 0
    (tmp_path / "o.onnx").unlink()

    def open_image(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, None, None, 2], name="x")
        tf.nn.conv2d(x, tf.ones([3, 3, 2, 2]), 1, "VALID", name="y")

    graph_def(open_image, tmp_path / "g.pb")  # fully convolutional, so any size is converted; quantizing needs one
    assert run(["convert", f"{tmp_path}/g.pb", "-o", f"{tmp_path}/g.onnx"]) == 0
    np.save(tmp_path / "x.npy", np.ones((2, 6, 6, 2), np.float32))
    line = refused("quantize {t}/g.onnx -o {t}/o.onnx --calibration {t}/x.npy")
    assert "'x'" in line and "[?, ?, ?, 2]" in line and "--input-shape" in line
    assert run(["convert", f"{tmp_path}/g.pb", "-o", f"{tmp_path}/g.onnx", "--force", "--input-shape", "6,6,2"]) == 0
    assert run(f"quantize {tmp_path}/g.onnx -o {tmp_path}/o.onnx --calibration {tmp_path}/x.npy".split()) == 0


def test_control_flow(refused: Refused, tmp_path: Path) -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        return helper.make_graph([node(op, ["x"], [name])], name, [], [helper.make_tensor_value_info(name, 1, ["N", 2, 6, 6])])

    choice = node("If", ["c"], ["y"], name="choose", then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg"))
    write(tmp_path / "m.onnx", image_network([choice], {"c": np.array(True)}))
    line = refused("convert {t}/m.onnx -o {t}/o.onnx")
    assert "If node 'choose'" in line and "control flow" in line and "expected" in line

    def loop(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        done = tf.while_loop(lambda v: tf.reduce_sum(v) < 9, lambda v: [v * 2 + 1], [x], name="again")
        tf.identity(done[0] if isinstance(done, (list, tuple)) else done, name="y")

    graph_def(loop, tmp_path / "g.pb")
    assert "again" in refused("convert {t}/g.pb -o {t}/o.onnx")


class Canary:
    """Creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickled_objects_are_refused_and_not_run(refused: Refused, tmp_path: Path, dense: Path) -> None:
    canary = tmp_path / "sung"
    objects = np.empty((8, 3), dtype=object)
    objects[:] = 1.0
    objects[2, 1] = Canary(canary)
    np.save(tmp_path / "bad.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "bad.npz", x=objects, y=np.arange(8) % 2)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Canary(canary)))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Canary(canary)))
    for name in ("bad.npy", "bad.npz", "bare.npy", "bare.npz"):
        assert name in refused(f"quantize {{d}}/m.onnx -o {{t}}/o.onnx --calibration {{t}}/{name}", d=dense)
        assert name in refused(f"check {{d}}/q.onnx --data {{t}}/{name}", d=dense)
        assert name in refused(f"evaluate {{d}}/m.onnx --data {{t}}/{name}", d=dense)
    assert not canary.exists()
    with pytest.raises(FileExistsError):  # the canary can sing
        canary.mkdir()
        np.load(tmp_path / "bad.npy", allow_pickle=True)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_lambda_layer_needs_trust(refused: Refused, tmp_path: Path, sources: Path, suffix: str) -> None:
    line = refused(f"convert {{s}}/lambda.{suffix} -o {{t}}/o.onnx", s=sources)
    assert "Lambda" in line and "'twice'" in line and "--trust" in line
    assert run(["convert", f"{sources}/lambda.{suffix}", "-o", f"{tmp_path}/o.onnx", "--trust"]) == 0


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_external_data_outside_its_folder(refused: Refused, tmp_path: Path, dense: Path, location: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    proto = dense_network()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    write(tmp_path / "in" / "m.onnx", proto)
    for command in (
        "convert {t}/in/m.onnx -o {t}/o.onnx",
        "quantize {t}/in/m.onnx -o {t}/o.onnx --calibration {d}/x.npy",
        "inspect {t}/in/m.onnx",
    ):
        line = refused(command, d=dense)
        assert "tensor 'w'" in line and repr(location) in line and "which is no file inside" in line


@pytest.mark.parametrize(
    "proto", [chain(2000), ladder(666), fan(500)], ids=["2,000 nodes in a chain", "2^666 paths", "500 branches of one value"]
)
def test_deep_and_wide_graphs(tmp_path: Path, proto: onnx.ModelProto) -> None:
    write(tmp_path / "deep.onnx", proto)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32))
    assert run(f"convert {tmp_path}/deep.onnx -o {tmp_path}/m.onnx".split()) == 0
    assert len(load(tmp_path / "m.onnx").graph) >= len(proto.graph.node) // 2  # none of it has been optimized away
    assert run(f"quantize {tmp_path}/m.onnx -o {tmp_path}/q.onnx --calibration {tmp_path}/x.npy".split()) == 0
    assert run(f"check {tmp_path}/q.onnx --data {tmp_path}/x.npy".split()) == 0
    assert run(f"inspect {tmp_path}/q.onnx".split()) == 0


def test_2000_nodes_of_tensorflow(tmp_path: Path) -> None:
    def pools(tf: Any) -> None:
        value = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, 2], name="x")
        for _ in range(1998):
            value = tf.nn.max_pool2d(value, 2, 1, "SAME")
        tf.nn.conv2d(value, tf.reshape(tf.range(4.0), [1, 1, 2, 2]), 1, "SAME", name="y")

    graph_def(pools, tmp_path / "deep.pb")
    assert run(f"convert {tmp_path}/deep.pb -o {tmp_path}/m.onnx".split()) == 0


def test_two_outputs_with_one_name(refused: Refused, tmp_path: Path, sources: Path) -> None:
    proto = dense_network()
    proto.graph.output.append(proto.graph.output[0])
    write(tmp_path / "m.onnx", proto)
    for command in ("convert {t}/m.onnx -o {t}/o.onnx", "inspect {t}/m.onnx"):
        assert "each output needs a name of its own. Received: 'y' twice" in refused(command)
    for names in ("net/relu6/Relu6,net/relu6/Relu6", "net/relu6/Relu6,net/relu6/Relu6:0"):
        assert "net/relu6/Relu6" in refused("convert {s}/net.pb -o {t}/o.onnx --outputs", names, s=sources)


def test_no_space_left(tmp_path: Path, dense: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def full(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(QUANTIZE.format(t=tmp_path, d=dense).split()) == 2
    assert capfd.readouterr().err.splitlines()[-1].endswith("out.onnx: cannot be written: No space left on device")
    assert list(tmp_path.iterdir()) == []  # in spite of ten bytes written


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that refuses even root is needed")
def test_a_read_only_folder(refused: Refused, dense: Path, sources: Path) -> None:
    for command in ("quantize {d}/m.onnx --calibration {d}/x.npy -o", "convert {s}/net.pb -o", "convert {d}/m.onnx -o"):
        assert "/proc/self/o.onnx: cannot be written" in refused(command, "/proc/self/o.onnx", d=dense, s=sources)


def test_quantizing_what_is_quantized(refused: Refused, tmp_path: Path, dense: Path) -> None:
    line = refused("quantize {d}/q.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)
    assert "quantized already" in line and "float model" in line
    line = refused("convert {d}/q.onnx -o {t}/o.onnx", d=dense)
    assert "quantized already" in line and "float model" in line
    anonymous = onnx.load(dense / "q.onnx")
    del anonymous.metadata_props[:]
    write(tmp_path / "other.onnx", anonymous)
    for command in ("quantize {t}/other.onnx -o {t}/o.onnx --calibration {d}/x.npy", "convert {t}/other.onnx -o {t}/o.onnx"):
        line = refused(command, d=dense)
        assert "another tool" in line and "a float model is expected" in line and "QuantizeLinear" in line
