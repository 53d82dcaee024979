from __future__ import annotations

from tqt_onnx.passes.collapse_concat import CollapseConcat

HEAD = "g (float[n,2,3] x, float[n,2,3] z) => (float[n,k,3] y)"
WIDE = "g (float[n,2,3] x, float[n,2,3] z) => (float[n,k,6] y)"


def test_nested_concatenations_become_one(golden):
    golden(
        CollapseConcat(),
        f"""{HEAD} {{ a = Concat<axis = 1>(x, z) b = Concat<axis = 1>(z, a)
            c = Concat<axis = -2>(b, x) y = Concat<axis = 1>(c, z) }}""",
        f"{HEAD} {{ y = Concat<axis = 1>(z, x, z, x, z) }}",
    )


def test_the_same_concatenation_twice(golden):
    golden(
        CollapseConcat(),
        f"{HEAD} {{ a = Concat<axis = 1>(x, z) y = Concat<axis = 1>(a, a) }}",
        f"{HEAD} {{ y = Concat<axis = 1>(x, z, x, z) }}",
    )


def test_a_single_part_is_the_part(golden):
    golden(
        CollapseConcat(),
        f"{HEAD} {{ a = Relu(x) b = Concat<axis = 1>(a) y = Neg(b) }}",
        f"{HEAD} {{ a = Relu(x) y = Neg(a) }}",
    )
    golden(
        CollapseConcat(), f"{HEAD} {{ a = Relu(x) y = Concat<axis = 1>(a) }}", f"{HEAD} {{ y = Relu(x) }}"
    )  # the output keeps its name (O3)


def test_other_axes_other_readers_and_outputs_stay(untouched):
    untouched(CollapseConcat(), f"{WIDE} {{ a = Concat<axis = 2>(x, z) b = Concat<axis = 2>(z, x) y = Concat<axis = 1>(a, b) }}")
    untouched(CollapseConcat(), f"{HEAD} {{ a = Concat<axis = 1>(x, z) b = Neg(a) y = Concat<axis = 1>(a, b) }}")
    untouched(
        CollapseConcat(),
        "g (float[n,2] x) => (float[n,4] a, float[n,6] y) { a = Concat<axis = 1>(x, x) y = Concat<axis = 1>(a, x) }",
    )
    untouched(CollapseConcat(), "g (float[n,2] x) => (float[n,2] y) { y = Concat<axis = 1>(x) }")
