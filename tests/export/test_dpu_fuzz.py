"""Random networks for DPUs: what is written is within every limit, and one of ours; the rest is refused by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from dpu_reading import Reading
from fuzz_road import quantize_network
from hypothesis import HealthCheck, Phase, given, settings
from random_networks import Network, networks

from tqt_onnx.export.dpu import DpuExporter
from tqt_onnx.ir import DataError, UnsupportedError, load
from tqt_onnx.verbs.check import check
from tqt_onnx.verbs.export import make_source


def test_random_networks_fit_or_are_refused() -> None:
    seen = Counter[str]()

    @settings(
        max_examples=30,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(network=networks())
    def every(network: Network) -> None:
        try:
            source = make_source(quantize_network(network), "net", None)
        except (DataError, UnsupportedError):
            return
        exporter = DpuExporter(fix=True, bias_bits=8 if network.layer_bits == 32 else 32)
        try:
            exporter.check(source)
        except UnsupportedError as error:
            assert str(error).startswith("target dpu: ")
            seen["refused"] += 1
            return
        with TemporaryDirectory() as name:
            exporter.write(source, Path(name))
            Reading(Path(name) / "net.onnx").check()
            fixed = load(Path(name) / "net.onnx")
        assert not check(fixed, network.inputs).differences
        seen["written"] += 1
        exact = DpuExporter()
        try:
            exact.check(source)
        except UnsupportedError:
            return
        with TemporaryDirectory() as name:
            exact.write(source, Path(name))
            same = load(Path(name) / "net.onnx")
        found = source.run(same, network.inputs, source.network.ends)
        expected = source.run(source.model, network.inputs, source.network.ends)
        for tensor in source.network.ends:
            np.testing.assert_array_equal(found[tensor], expected[tensor])
        seen["exact"] += 1

    every()
    assert seen["written"] >= 18
    assert seen["written"] >= 3 * seen["refused"] >= 3
    assert seen["exact"] >= 1
