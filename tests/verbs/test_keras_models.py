"""`to_keras` and `from_keras`: trained with plain `fit`, written back through the passes of static mode, exact in every engine."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import onnx_ir
import pytest
from batch_norm_networks import LAYERS, every_layer, images

from tqt_onnx.backend_tf import RegeneratedModel, load_model
from tqt_onnx.ir import ModelError, TqtOnnxError, UnsupportedError, UsageError
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.check import check
from tqt_onnx.verbs.convert import convert
from tqt_onnx.verbs.demo import demo_digits, train
from tqt_onnx.verbs.evaluate import evaluate
from tqt_onnx.verbs.keras_models import from_keras, to_keras
from tqt_onnx.verbs.quantize import quantize

ENGINES = ("oracle", "ort", "tf")


def text(model: onnx_ir.Model) -> bytes:
    return onnx_ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize("bits", [BitWidths(), BitWidths(layer=32), BitWidths(weight=4)], ids=["layer16", "layer32", "int4"])
def test_untrained_it_is_the_model_that_quantize_writes(bits):
    """The same bytes: names, shapes, metadata, integers, scales."""
    static = quantize(every_layer(), images(), bits=bits, weight_method="3sd")
    back = from_keras(to_keras(every_layer(), images(), bits=bits))
    assert text(back.model) == text(static.model)
    assert (back.graph, back.islands, back.tables) == (static.graph, static.islands, static.tables)
    for group, threshold in static.log2_thresholds.items():
        assert np.ceil(back.log2_thresholds[group]) == np.ceil(threshold)


def test_scalars_stay_scalars():
    """The slope of a leaky relu has no axes, in static mode and when it comes back."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.LeakyReLU(negative_slope=0.1)(keras.layers.Conv2D(4, 3)(inputs))
    model = convert(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))).model
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    static = quantize(model, x, weight_method="3sd").model
    assert text(from_keras(to_keras(model, x)).model) == text(static)
    assert any(
        value.shape is not None and value.shape.rank() == 0 and name.endswith("__q")
        for name, value in static.graph.initializers.items()
    )


def test_unsigned_inputs_are_unsigned_afterwards():
    bits = BitWidths(unsigned_input=True)
    x = np.abs(images())
    assert text(from_keras(to_keras(every_layer(), x, bits=bits)).model) == text(
        quantize(every_layer(), x, bits=bits, weight_method="3sd").model
    )


def test_a_network_of_digits_trained_with_fit(tmp_path):
    """convert --keep-batch-norm, to_keras in INT4, fit with moving then frozen statistics, from_keras: better, and exact."""
    digits = demo_digits(0)
    network = train(digits, epochs=3, seed=0)
    floating = convert(network, keep_batch_norm=True).model
    bits = BitWidths(weight=4)
    model = to_keras(floating, digits.calibration, bits=bits, batch_norm="moving", batch_norm_momentum=0.9)
    assert len(model.batch_norm_layers) == 5 and not model.folded_layers
    data, labels = digits.train[:512], digits.train_labels[:512]
    for frozen in (False, True):
        model.statistics_frozen = frozen
        model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(data, labels, batch_size=32, epochs=1, verbose=0, shuffle=False).history
    model.save(tmp_path / "trained.keras")
    trained, static = from_keras(tmp_path / "trained.keras"), quantize(floating, digits.calibration, bits=bits)
    assert text(trained.model) == text(from_keras(model).model)
    np.savez(tmp_path / "test.npz", x=digits.test, y=digits.test_labels)
    before, after = evaluate({"static": static.model, "trained": trained.model}, tmp_path / "test.npz").models
    assert after.top1 > before.top1
    assert history["accuracy"][-1] > 0.8
    result = check(trained.model, digits.test[:32], engines=ENGINES)
    assert result.exact


def test_every_kind_of_layer_is_exact_behind_training():
    model = to_keras(every_layer(), images(), batch_norm="moving")
    assert model.batch_norm_layers == LAYERS and not model.statistics_frozen
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    model.fit(images(32), np.zeros((32, 5), np.float32), batch_size=8, verbose=0)
    assert check(from_keras(model).model, images(8, seed=7), engines=ENGINES).exact


def test_weights_that_are_not_finite_are_refused():
    model = to_keras(every_layer(), images())
    model.variables[0].assign(np.full(model.variables[0].shape, np.nan, np.float32))
    with pytest.raises(ModelError, match="finite weights"):
        from_keras(model)


def test_thresholds_beyond_the_exact_range_are_refused():
    model = to_keras(every_layer(), images())
    model.set_thresholds(np.full(len(model.groups), 200, np.float32))
    with pytest.raises(UnsupportedError, match="outside"):
        from_keras(model)


def test_other_keras_models_are_refused():
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ModelError, match=r"to_keras.*Received: Sequential"):
        from_keras(other)
    with pytest.raises(UsageError, match="batch_norm"):
        to_keras(every_layer(), images(), batch_norm="thawed")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    to_keras(every_layer(), images()).save(path)
    return path


def rewritten(saved: Path, folder: Path, change: dict[str, object] | None = None, **members: bytes | None) -> Path:
    """A copy with fields of the configuration changed, or members of the archive replaced (None: left out)."""
    target = folder / "damaged.keras"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json" and change:
                config = json.loads(data)
                config["config"] |= change
                data = json.dumps(config).encode()
            data = members.get(name.partition(".")[0], data)
            if data is not None:
                copy.writestr(name, data)
    return target


def refusal(path: Path) -> str:
    with pytest.raises(TqtOnnxError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    return message


def test_files_of_something_else_are_refused(saved, tmp_path):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save(tmp_path / "other.keras")
    assert "Received: Sequential" in refusal(tmp_path / "other.keras")
    assert "no such file" in refusal(tmp_path / "missing.keras")
    (tmp_path / "model.h5").write_bytes(saved.read_bytes())
    assert "another suffix" in refusal(tmp_path / "model.h5")
    for name, data in {"empty": b"", "text": b"hello", "half": saved.read_bytes()[: saved.stat().st_size // 2]}.items():
        path = tmp_path / f"{name}.keras"
        path.write_bytes(data)
        refusal(path)
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("a", b"b")
    refusal(tmp_path / "zip.keras")


def test_nothing_in_a_file_is_run(saved, tmp_path):
    """A lambda layer, and a class that would be imported: Keras is not asked to make either."""
    spell = {"class_name": "Lambda", "module": "keras.layers", "registered_name": None, "config": {"function": "boom"}}
    assert "Lambda" in refusal(rewritten(saved, tmp_path, config=json.dumps(spell).encode()))
    spell = {"class_name": "system", "module": "os", "registered_name": "system", "config": "touch /tmp/boom"}
    refusal(rewritten(saved, tmp_path, config=json.dumps(spell).encode()))


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "?"},
        {"graph": ""},
        {"graph": "AAAA"},
        {"graph": None},
        {"quantizers": "?"},
        {"quantizers": "e30="},
        {"quantizers_on": 1},
        {"batch_norms": "?"},
        {"batch_norms": "e30="},
        {"batch_norms": None},
        {"batch_norm_momentum": 3.5},
        {"batch_norm_momentum": "x"},
        {"statistics_frozen": None},
        {"name": 7},
    ],
    ids=str,
)
def test_damaged_configurations_are_refused(saved, tmp_path, change):
    refusal(rewritten(saved, tmp_path, change))


def changed_graph(saved: Path, change) -> dict[str, str]:
    import base64

    import onnx

    with zipfile.ZipFile(saved) as archive:
        proto = onnx.ModelProto.FromString(base64.b64decode(json.loads(archive.read("config.json"))["config"]["graph"]))
    change(proto.graph)
    return {"graph": base64.b64encode(proto.SerializeToString()).decode()}


def read_a_file(graph) -> None:
    tensor = graph.initializer[0]
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="/etc/hostname")


def huge(graph) -> None:
    del graph.initializer[0].dims[:]
    graph.initializer[0].dims.extend([1 << 20, 1 << 20])


def negative(graph) -> None:
    """Two of them would be a positive number of elements; one would make room for other tensors."""
    del graph.initializer[0].dims[:]
    graph.initializer[0].dims.extend([-(1 << 20), 1 << 20])


def unknown_operator(graph) -> None:
    graph.node[-1].op_type = "Bernoulli"


def nobody_computes(graph) -> None:
    graph.output[0].name = "nobody"


@pytest.mark.parametrize("change", [read_a_file, huge, negative, unknown_operator, nobody_computes])
def test_damaged_graphs_are_refused(saved, tmp_path, change):
    refusal(rewritten(saved, tmp_path, changed_graph(saved, change)))


def test_damaged_weights_are_refused(saved, tmp_path):
    refusal(rewritten(saved, tmp_path, model=b""))
    refusal(rewritten(saved, tmp_path, model=None))
    buffer = io.BytesIO()
    with zipfile.ZipFile(saved) as archive:
        buffer.write(archive.read("model.weights.h5"))
    data = bytearray(buffer.getvalue())
    refusal(rewritten(saved, tmp_path, model=bytes(data[: len(data) // 2])))


def bomb(group) -> None:
    group.create_dataset("0", (500_000_000,), "f4", chunks=(5_000_000,), compression="gzip", fillvalue=0)


def compressed(group) -> None:
    group.create_dataset("0", group["1"].shape, "f4", chunks=group["1"].shape, compression="gzip", fillvalue=0)


def unallocated(group) -> None:
    group.create_dataset("0", (4,), "f4", fillvalue=0)


def elsewhere(group) -> None:
    group.create_dataset("0", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def virtual(group) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "data", (4,))
    group.create_virtual_dataset("0", layout)


def of_another_type(group) -> None:
    group["0"] = np.zeros(4, np.float64)


def linked(group) -> None:
    group["0"] = h5py.SoftLink("/vars/1")


def of_another_file(group) -> None:
    group["0"] = h5py.ExternalLink("/etc/hostname", "/vars/1")


def a_group(group) -> None:
    group.create_group("0")


def missing(group) -> None:
    del group


def one_more(group) -> None:
    group["0"] = group["x"] = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    "change",
    [bomb, compressed, unallocated, elsewhere, virtual, of_another_type, linked, of_another_file, a_group, missing, one_more],
)
def test_weights_are_compared_before_they_are_read(saved, tmp_path, monkeypatch, change):
    with zipfile.ZipFile(saved) as archive:
        buffer = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(buffer, "r+") as file:
        assert file["vars/0"].shape == file["vars/1"].shape == (4,)
        del file["vars/0"]
        change(file["vars"])
    monkeypatch.setattr(RegeneratedModel, "load_own_variables", lambda *_: pytest.fail("read"))
    message = refusal(rewritten(saved, tmp_path, model=buffer.getvalue()))
    assert "variables are" in message or "is expected" in message or "stored in full" in message


def test_weights_that_the_archive_compresses_are_refused(saved, tmp_path):
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    assert "compressed" in refusal(tmp_path / "bomb.keras")


def test_a_saved_model_is_loaded_whole(saved):
    loaded, again = load_model(saved), keras.models.load_model(saved)
    assert isinstance(again, RegeneratedModel)
    assert text(from_keras(loaded).model) == text(from_keras(again).model) == text(from_keras(saved).model)
