"""run_passes keeps passes honest: unused parts go, ill-formed graphs stop, errors carry the pass's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir
import pytest

from tqt_onnx.ir import ModelError, UnsupportedError
from tqt_onnx.passes.base import check_well_formed, remove_unused, run_passes

GRAPH = """g (float[n,4] x, float[n,4] unread) => (float[n,4] y)
<float[1] a = {1.0}, float[1] b = {2.0}>
{ dead = Mul(x, a)
  deader = Relu(dead)
  y = Add(x, b) }"""


@dataclass(frozen=True)
class Nothing:
    name: ClassVar[str] = "nothing"
    answer: bool = False

    def apply(self, model):
        return self.answer


@dataclass(frozen=True)
class Raises:
    name: ClassVar[str] = "raises"
    error: Exception

    def apply(self, model):
        raise self.error


@dataclass(frozen=True)
class Breaks:
    name: ClassVar[str] = "breaks"

    def apply(self, model):
        next(iter(model.graph)).outputs[0].name = "x"
        return True


def test_remove_unused_takes_chains_and_constants_but_no_inputs(onnx_text):
    model = onnx_text(GRAPH)
    assert remove_unused(model) is True
    assert [node.op_type for node in model.graph] == ["Add"]
    assert list(model.graph.initializers) == ["b"]
    assert [value.name for value in model.graph.inputs] == ["x", "unread"]
    assert remove_unused(model) is False


def test_nothing_is_removed_behind_a_pass_that_changed_nothing(onnx_text):
    model = onnx_text(GRAPH)
    assert run_passes(model, [Nothing()]) is False
    assert model.graph.num_nodes() == 3


def test_callback_sees_every_pass(onnx_text):
    seen = []
    model = onnx_text(GRAPH)
    assert run_passes(model, [Nothing(), Nothing(True)], lambda step, _, changed: seen.append((step.name, changed))) is True
    assert seen == [("nothing", False), ("nothing", True)]


def test_typed_errors_begin_with_the_name_of_the_pass(onnx_text):
    with pytest.raises(UnsupportedError, match=r"^raises: no$"):
        run_passes(onnx_text(GRAPH), [Raises(UnsupportedError("no"))])


def test_defects_keep_their_type_and_gain_a_note(onnx_text):
    with pytest.raises(KeyError) as caught:
        run_passes(onnx_text(GRAPH), [Raises(KeyError("x"))])
    assert caught.value.__notes__ == ["in pass raises"]


def test_an_ill_formed_result_is_blamed_on_its_pass(onnx_text):
    model = onnx_text("g (float[n,4] x) => (float[n,4] y) { a = Relu(x) y = Neg(a) }")
    with pytest.raises(ModelError, match=r"^breaks: ill-formed graph: the name 'x' is defined twice"):
        run_passes(model, [Breaks()])


def test_use_before_definition_is_found(onnx_text):
    model = onnx_text("g (float[n,4] x) => (float[n,4] y) { a = Relu(x) y = Neg(a) }")
    first, second = list(model.graph)
    model.graph.remove(first)
    model.graph.insert_after(second, first)
    with pytest.raises(ModelError, match="reads 'a', which is not defined before it"):
        check_well_formed(model)


def test_an_initializer_without_data_is_found(onnx_text):
    model = onnx_text(GRAPH)
    model.graph.initializers["a"].const_value = None
    with pytest.raises(ModelError, match="initializer 'a' has no data"):
        check_well_formed(model)
    assert isinstance(model, onnx_ir.Model)
