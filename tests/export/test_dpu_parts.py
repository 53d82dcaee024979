"""Parts of the target `dpu` one by one: bounds of sums, and the copy of opset 17."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx_ir
import pytest
from dpu_reading import FITS
from handoff_networks import NETWORKS, examples

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export.dpu_rules.opset import older
from tqt_onnx.export.dpu_rules.positions import sites_of
from tqt_onnx.export.dpu_rules.sums import sum_bound
from tqt_onnx.export.dpu_rules.written import draft_of
from tqt_onnx.export.integers.network import SUMS
from tqt_onnx.ir import ModelError
from tqt_onnx.verbs.export import export_model, make_source


@cache
def quantized(name: str, bits: BitWidths) -> onnx_ir.Model:
    return tqt_onnx.quantize(NETWORKS[name](), examples(32, 0), bits=bits).model


@pytest.mark.parametrize("fix", [False, True])
@pytest.mark.parametrize("name", ["residual", "wide"])
def test_sums_without_a_certificate_are_named(name: str, fix: bool, tmp_path: Path) -> None:
    notes = export_model(quantized(name, BitWidths() if fix else FITS), "dpu", tmp_path / "out", options={"fix": fix}).notes
    large = [note for note in notes if note.startswith("Sums that can leave 2^24")]
    assert large == (["Sums that can leave 2^24, so an executor in float32 may round them: y."] if name == "wide" else [])


@pytest.mark.parametrize("name", ["residual", "depthwise", "transposed", "tail", "wide"])
def test_bounds_of_sums_are_those_of_the_certificate(name: str) -> None:
    """Of a model that is written as it is; `check` certifies what is written otherwise."""
    source = make_source(quantized(name, FITS), "model", None)
    draft = draft_of(source, 32)
    nodes = {node.name: node for node in draft.nodes}
    own = {site.node: sum_bound(source, draft, site, nodes[site.node]) for site in sites_of(draft) if site.kind == "layer"}
    operations = [operation for step in source.network.steps for operation in step.operations if operation.op in SUMS]
    assert len(operations) == len(own) >= 2
    assert draft.changes == []
    assert {operation.node: operation.bound for operation in operations} == own


def test_a_resize_that_is_newer_than_opset_17_is_not_written_there() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[1, 1, 4, 4] x) => (float[1, 1, 8, 8] y)
    <float[4] s = {1.0, 1.0, 2.0, 2.0}> { y = Resize <coordinate_transformation_mode = "%s", mode = "nearest"> (x, , s) }"""
    plain = older(onnx_ir.from_onnx_text(text % "asymmetric"))
    assert isinstance(plain, onnx_ir.Model)
    assert plain.graph.opset_imports[""] == 17
    assert older(onnx_ir.from_onnx_text(text % "half_pixel_symmetric")) == "Resize"


def test_an_ill_formed_copy_is_refused() -> None:
    model = onnx_ir.from_onnx_text('<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[1] y) { y = Relu (x) }')
    model.graph[0].resize_inputs(0)
    with pytest.raises(ModelError, match="refusing to write an ill-formed model of opset 17: "):
        older(model)
