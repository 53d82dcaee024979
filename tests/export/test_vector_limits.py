"""Target `vectors`: what is refused, and how much is in memory."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from handoff_networks import examples, quantized

from tqt_onnx.export import VectorsExporter, vectors
from tqt_onnx.ir import UnsupportedError, UsageError
from tqt_onnx.verbs import export
from tqt_onnx.verbs.export import export_model, make_source
from tqt_onnx.verbs.sources import Feeder


def test_more_than_a_disk_should_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = quantized("residual"), examples(50)
    sizes = [
        sum(file.bytes for file in export_model(model, "vectors", tmp_path / f"{n}", data=data, limit=n).files) for n in (10, 20)
    ]
    each = (sizes[1] - sizes[0]) / 10
    monkeypatch.setattr(vectors, "MOST_BYTES", int(30.5 * each))
    with pytest.raises(UnsupportedError, match=r"--limit \d+ or less is expected. Received: 50 examples") as refused:
        export_model(model, "vectors", tmp_path / "v", data=data)
    assert not (tmp_path / "v").exists()
    most = int(str(refused.value).split("--limit ")[1].split()[0])
    assert 25 <= most <= 31
    export_model(model, "vectors", tmp_path / "most", data=data, limit=most)
    with pytest.raises(UnsupportedError, match=f"--limit {most} or less"):
        export_model(model, "vectors", tmp_path / "more", data=data, limit=most + 1)


def test_the_estimate_is_that_of_the_files(tmp_path: Path) -> None:
    """Headers and comments apart."""
    model = quantized("concat")
    source = make_source(model, "m", None)
    once, each = vectors._sizes(source.network, 1)
    files = [export_model(model, "vectors", tmp_path / f"{n}", data=examples(n)).files for n in (2, 12)]
    few, many = ({file.path: file.bytes for file in some} for some in files)
    tensors = sum(path.endswith(".mem") and many[path] != size for path, size in few.items())
    grown = sum(many[path] - size for path, size in few.items() if path != "manifest.json")
    comments = sum(len(f"// example {index}\n") for index in range(2, 12)) * tensors
    assert grown == 10 * each + comments
    assert once < sum(size for path, size in few.items() if path.startswith("tensors"))


def test_a_limit_that_not_even_one_example_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "MOST_BYTES", 100)
    with pytest.raises(UnsupportedError, match=r"not even one example fits\. Received: 2 examples"):
        export_model(quantized("residual"), "vectors", tmp_path / "v", data=examples(2))


def test_data_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data is expected"):
        export_model(quantized("residual"), "vectors", tmp_path / "v")
    with pytest.raises(UsageError, match="--data is expected"):
        VectorsExporter().check(make_source(quantized("residual"), "m", None))


def test_integers_wider_than_their_words_are_refused() -> None:
    source = make_source(quantized("residual"), "m", Feeder(quantized("residual"), examples(2)))
    name, tensor = next((name, tensor) for name, tensor in source.network.tensors.items() if tensor.kind == "constant")
    tensors = {**source.network.tensors, name: replace(tensor, bits=2)}
    with pytest.raises(UnsupportedError, match=f"tensor '{name}': words of 2 bits, signed, are expected. Received: -"):
        VectorsExporter().check(replace(source, network=replace(source.network, tensors=tensors)))


def test_a_tensor_that_the_oracle_cannot_reach(tmp_path: Path) -> None:
    source = make_source(quantized("residual"), "m", Feeder(quantized("residual"), examples(2)))
    with pytest.raises(UnsupportedError, match="tensor 'sum_relu__q' has no integers"):
        VectorsExporter().write(
            replace(source, oracle=lambda feeds: {k: v for k, v in source.oracle(feeds).items() if k != "sum_relu__q"}), tmp_path
        )


def test_memory_does_not_grow_with_the_number_of_examples(tmp_path: Path) -> None:
    peaks = []
    for count in (16, 160):
        source = make_source(quantized("depthwise"), "m", Feeder(quantized("depthwise"), examples(count)))
        folder = tmp_path / str(count)
        folder.mkdir()
        tracemalloc.start()
        VectorsExporter().write(source, folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks


def test_a_batch_for_exporters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 examples, fewer where their integers are many, at least one."""
    model = quantized("residual")
    numbers = sum(
        math.prod(size or 1 for size in tensor.shape)
        for tensor in make_source(model, "m", None).network.tensors.values()
        if tensor.kind != "constant"
    )
    for most, expected in ((1 << 24, [16, 16, 8]), (5 * numbers + 1, [5] * 8), (numbers // 2, [1] * 40)):
        monkeypatch.setattr(export, "_MOST_NUMBERS", most)
        source = make_source(model, "m", Feeder(model, examples(40)))
        assert source.examples is not None
        assert [len(feeds["x"]) for feeds in source.examples()] == expected
