"""What is no source at all: recognised by content, refused in one line."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load
from tqt_onnx.frontend_tf.quiet import quiet
from tqt_onnx.ir import ModelError, TqtOnnxError, UnsupportedError


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("m.tflite", b"\x1c\0\0\0TFL3" + bytes(64), UnsupportedError, "TensorFlow Lite"),
        ("m.pb", b"\x1c\0\0\0TFL3" + bytes(64), UnsupportedError, "TensorFlow Lite"),
        ("m.onnx", b"\x08\x08\x12\x07pytorch", ModelError, "an ONNX model"),
        ("m.pt", zipped("archive/data.pkl"), UnsupportedError, "PyTorch"),
        ("m.pkl", b"\x80\x04\x95abc", ModelError, "pickle, which is never read"),
        ("m.zip", zipped("m/saved_model.pb"), ModelError, "holds a SavedModel; unpack it"),
        ("m.zip", zipped("a.txt"), ModelError, "holds no Keras model.*a.txt"),
        ("m.zip", zipped("a.txt")[:-30], ModelError, "truncated zip"),
        ("m.pb.gz", b"\x1f\x8b\x08" + bytes(20), ModelError, "gzip.*unpack"),
        ("model.json", json.dumps({"modelTopology": {}, "weightsManifest": []}).encode(), UnsupportedError, r"TensorFlow\.js"),
        ("m.json", b'{"a": 1}', ModelError, r"JSON file.*\['a'\]"),
        ("m.json", b"{" * 100_000, ModelError, "text"),
        ("m.npy", b"\x93NUMPY\x01\0", ModelError, "NumPy"),
        ("m.png", b"\x89PNG\r\n", ModelError, "image"),
        ("m.pb", b"version https://git-lfs.github.com/spec/v1", ModelError, "git-lfs"),
        ("m.pb", b"node {\n  name: 'x'\n", ModelError, "no graph, or is truncated"),
        ("m.txt", b"hello", ModelError, "no graph, or is truncated"),
        ("m.meta", bytes(range(200)), ModelError, "no graph, or is truncated"),
        ("m.py", b"import os", ModelError, "Python code, which is never run"),
        ("m.ckpt.data-00000-of-00001", b"\0\1\2\3", ModelError, "shard of a checkpoint"),
        ("m.ckpt.index", b"\0\1\2\3", ModelError, "part of a checkpoint"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(30), ModelError, "truncated"),
        ("m.keras", b"PK\x03\x04" + bytes(30), ModelError, "truncated"),
        ("m.pb", b"", ModelError, "is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # zips hold the time: names must not
)
def test_files(tmp_path: Path, name: str, content: bytes, kind: type[TqtOnnxError], message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=message) as caught:
        load(tmp_path / name)
    assert name in str(caught.value) and "Received: " in str(caught.value) and "\n" not in str(caught.value)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "none")
    with pytest.raises(ModelError, match=r"folder that holds no model.*Received: nothing"):
        load(tmp_path)
    np.save(tmp_path / "calibration_set.npy", np.zeros(3))
    with pytest.raises(ModelError, match=r"folder that holds no model.*Received: calibration_set\.npy"):
        load(tmp_path)


def test_checkpoints_without_a_graph(tmp_path: Path) -> None:
    with quiet():
        tf.train.Checkpoint(w=tf.Variable([1.0])).save(str(tmp_path / "objects" / "ckpt"))
    with pytest.raises(ModelError, match=r"TensorFlow 2 checkpoint, which is weights without a graph.*\.keras.*Received: ckpt-1"):
        load(tmp_path / "objects")
    with quiet(), tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("w", (2,))
        session.run(tf.compat.v1.global_variables_initializer())
        (tmp_path / "names").mkdir()
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "names" / "m"), write_meta_graph=False)
    with pytest.raises(ModelError, match=r"checkpoint without its graph; m\.meta or a \.pb.*Received: m"):
        load(tmp_path / "names")


def test_several_graphs(tmp_path: Path) -> None:
    for name in ("a.pb", "b.pb"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=r"several models; name one of them\. Received: a\.pb, b\.pb"):
        load(tmp_path)
