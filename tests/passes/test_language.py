from __future__ import annotations

import pytest

from tqt_onnx.ir import UsageError
from tqt_onnx.passes.affine_into_next import AffineIntoNext
from tqt_onnx.passes.fix_input_shape import FixInputShape
from tqt_onnx.passes.language import ALIASES, describe, parse_passes
from tqt_onnx.passes.recipes import PASSES, RECIPES
from tqt_onnx.passes.strip_unused import StripUnused


@pytest.mark.parametrize(
    "text",
    [
        "fix-input-shape(shape=8,4,3),strip-unused,affine-into-next(batch_norms=false)",
        "fix_input_shape( shape = 8, 4, 3 )  strip_unused\n affine-into-next(batch_norms = No)",
        " fix-input-shape(shape=8x4x3) , strip-unused, affine-into-next(batch_norms=0),",
    ],
)
def test_lists_are_read_in_every_spelling(text):
    assert parse_passes(text) == (FixInputShape((8, 4, 3)), StripUnused(), AffineIntoNext(batch_norms=False))


def test_recipes_unfold_in_place():
    assert parse_passes("strip-unused, optimize, strip-unused") == (StripUnused(), *RECIPES["optimize"], StripUnused())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_written_out_is_the_recipe(recipe):
    assert parse_passes(", ".join(describe(RECIPES[recipe]))) == RECIPES[recipe]


def test_every_pass_can_be_named_and_no_name_means_two_things():
    for name, step in PASSES.items():
        assert parse_passes(name) == (step(),)
    assert not set(PASSES) & set(RECIPES)
    assert not set(ALIASES) & {*PASSES, *RECIPES}


def test_graffitist_recipe_of_a_float_network():
    kept = "fix_input_shape, fold_batch_norms(is_training=True), remove_training_nodes, strip_unused_nodes, preprocess_layers"
    steps = parse_passes(kept)
    assert steps[0] == FixInputShape()
    assert not any(step.name == "fold-batch-norm" for step in steps)
    assert any(step.name == "fold-batch-norm" for step in parse_passes(kept.replace("(is_training=True)", "")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one pass"),
        (" , x", "name or name"),
        ("fold-batchnorm", "close names: .*fold-batch-norm"),
        ("zzz", "`tqt-onnx passes` lists them all"),
        ("strip-unused(x=1)", "'x' is no option; it has none"),
        ("fix-input-shape(shapes=1)", "'shapes' is no option; it has shape"),
        ("fix-input-shape(8,8,3)", "option=value"),
        ("fix-input-shape(8,shape=8)", "option=value"),
        ("fix-input-shape(shape=a,b)", "whole numbers"),
        ("fix-input-shape(shape=1,shape=2)", "given twice"),
        ("affine-into-next(batch_norms=maybe)", "true or false"),
        ("optimize(x=1)", "recipe has no options"),
        ("strip-unused;__import__('os')", "name or name"),
        ("strip-unused(", "name or name"),
        ("quantize(weight_bits=8)", "recipe has no options"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_passes(text)
