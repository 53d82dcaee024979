from __future__ import annotations

import pytest

from tqt_onnx.ir import ROLE_KEY
from tqt_onnx.passes.splice_identities import SpliceIdentities


def test_identity_and_cast_go_and_the_output_keeps_its_name(golden):
    golden(
        SpliceIdentities(),
        """g (float[n,2] x) => (float[n,2] y)
        { a = Relu(x) b = Identity(a) d = Cast<to = 1>(b) e = Neg(d) y = Identity(e) }""",
        "g (float[n,2] x) => (float[n,2] y) { a = Relu(x) y = Neg(a) }",
    )


@pytest.mark.parametrize("operator", ["SpaceToDepth", "DepthToSpace"])
def test_blocks_of_one_element_go_others_stay(golden, untouched, operator):
    io = "g (float[n,4,2,2] x) => (float[n,c,h,w] y)"
    golden(
        SpliceIdentities(),
        f"{io} {{ a = Relu(x) b = {operator}<blocksize = 1>(a) y = Neg(b) }}",
        f"{io} {{ a = Relu(x) y = Neg(a) }}",
    )
    untouched(SpliceIdentities(), f"{io} {{ y = {operator}<blocksize = 2>(x) }}")


def test_names_on_both_sides_stay(untouched):
    untouched(SpliceIdentities(), "g (float[n,2] x) => (float[n,2] y) { y = Identity(x) }")
    untouched(SpliceIdentities(), "g (float[n,2] x) => (float[n,2] a, float[n,2] y) { a = Relu(x) y = Identity(a) }")


def test_an_output_read_elsewhere_stays_read(golden):
    golden(
        SpliceIdentities(),
        "g (float[n,2] x) => (float[n,2] y, float[n,2] z) { a = Relu(x) y = Identity(a) z = Neg(a) }",
        "g (float[n,2] x) => (float[n,2] y, float[n,2] z) { y = Relu(x) z = Neg(y) }",
    )


def test_roles_dropout_and_real_casts_stay(untouched, onnx_text):
    model = onnx_text("g (float[n,2] x) => (float[n,2] y) { a = Relu(x) b = Identity(a) y = Neg(b) }")
    list(model.graph)[1].metadata_props[ROLE_KEY] = "rescale"
    assert SpliceIdentities().apply(model) is False
    untouched(
        SpliceIdentities(),
        """g (float[n,2] x) => (float[n,2] y, bool[n,2] mask) <bool on = {1}, float half = {0.5}>
        { a = Relu(x) b = Dropout(a, half, on) c, mask = Dropout(b) d = Cast<to = 11>(c) y = Cast<to = 1>(d) }""",
    )
