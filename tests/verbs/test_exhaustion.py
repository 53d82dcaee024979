"""Tables that are run entry by entry: which engines are believed, and what is cut out of the network (L12)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir
import pytest

import tqt_onnx
from tqt_onnx.ir import quantizers_of
from tqt_onnx.passes import insert_qdq, remove_qdq
from tqt_onnx.verbs import exhaustion
from tqt_onnx.verbs.check import check, tensorflow_runner
from tqt_onnx.verbs.exhaustion import LANES, cut_out, exhaust, observed_on
from tqt_onnx.verbs.show import show_check
from tqt_onnx.verify import Oracle, certify, check_engines
from tqt_onnx.verify.plan import make_plan

ENTRIES = np.ldexp(np.arange(-128, 128).astype(np.float32), -4)


def network(body, constants=(), shape=("N", 3, 4)):
    """`x -> body -> f -> MatMul`: the body computes `f`."""
    lines = "".join(f"float {name} = {{{value}}}, " for name, value in constants)
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[{", ".join(map(str, shape))}] x) => (float[{", ".join(map(str, shape))}] y)
    <{lines}float[4, 4] w = {{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}}> {{
        {body}
        y = MatMul(f, w)
    }}"""
    model = onnx_ir.from_onnx_text(text)
    data = np.resize(ENTRIES, (24, 3, 4))[:22].astype(np.float32)
    return tqt_onnx.quantize(model, data, method="max").model, data


HARD_SWISH = "s = Add(x, three) g = Clip(s, zero, six) p = Mul(x, g) f = Mul(p, sixth)"
TIES = [("three", 3), ("zero", 0), ("six", 6), ("sixth", 0.16666667)]
"""Exact ties in the table, where float32 is a hair off them."""


@pytest.fixture(name="swish", scope="module")
def swish_fixture():
    return network(HARD_SWISH, TIES)


def table_of(model):
    (found,) = (certificate for certificate in certify(model) if certificate.op_type == "Table")
    return found


def run(model, engine=None):
    """What exhaustion says of the one table, with an engine of our own beside onnxruntime."""
    makers = {} if engine is None else {"mine": engine}
    return exhaust(model, ("oracle", "ort", *makers), makers)([table_of(model)])


def faithful(model, spoil=lambda integers, feeds: integers):
    """An engine that gives the oracle's integers, spoiled."""
    oracle = Oracle(model)

    def runner(feeds):
        return {name: spoil(oracle.run(feeds)[name].integers.copy(), feeds) for name in oracle.plan.integers[-1:]}

    return runner


def spoiling(spoil):
    return lambda model: faithful(model, spoil)


def test_a_table_that_every_engine_gives_is_exhausted(swish):
    model, _ = swish
    certificate = table_of(model)
    assert certificate.undecided and not certificate.certified
    agreeing = run(model, faithful)[certificate.output]
    assert {"ort", "ort-optimized", "mine"} <= set(agreeing)


def one_entry(integers, feeds):
    (x,) = feeds.values()
    return integers + (x == ENTRIES[200])


def one_lane(integers, feeds):
    return integers + (np.arange(integers.shape[-1]) % LANES == 5)


def last_lane_of_one_entry(integers, feeds):
    (x,) = feeds.values()
    return integers + ((x == ENTRIES[200]) & (np.arange(x.shape[-1]) % LANES == LANES - 1))


def only_alone(integers, _feeds):
    return integers + (integers.size == 1)


def only_few(integers, _feeds):
    return integers + (integers.size == exhaustion.FEW)


def only_full(integers, _feeds):
    return integers + (integers.size > 256)


@pytest.mark.parametrize("spoil", [one_entry, one_lane, last_lane_of_one_entry, only_alone, only_few, only_full])
def test_one_wrong_number_is_enough(swish, spoil):
    assert run(swish[0], spoiling(spoil)) == {}


def test_an_engine_that_shows_nothing_or_fails_has_not_agreed(swish):
    def refusing(_model):
        raise tqt_onnx.TqtOnnxError("no such engine")

    assert run(swish[0], lambda _model: lambda _feeds: {}) == {}
    assert run(swish[0], refusing) == {}


def test_an_engine_that_rounds_the_argument_otherwise_has_not_agreed(swish):
    def engine(model):
        oracle = Oracle(model)
        first, last = oracle.plan.integers[0], oracle.plan.integers[-1]
        return lambda feeds: {name: oracle.run(feeds)[name].integers + (name == first) for name in (first, last)}

    assert run(swish[0], engine) == {}


def test_tensorflow_runs_the_entries_as_it_runs_slices(swish, capsys):
    model, data = swish
    certificate = table_of(model)
    assert "tf" in exhaust(model, ("oracle", "tf"), {"tf": tensorflow_runner})([certificate])[certificate.output]
    result = check(model, data, engines=("oracle", "ort", "tf"), batch_size=1)
    assert result.exact and not result.certified and result.exhausted == (certificate.node,)
    assert certificate.node in result.without_certificate
    (note,) = (note for note in result.notes if "entry" in note)
    assert note == observed_on(1, result.engines) and "onnxruntime 1." in note and "tensorflow 2." in note
    show_check(result)
    text = " ".join(capsys.readouterr().out.split())
    assert "1 more run entry by entry" in text and "and every exhausted table" in text and "every entry was run" in text


def test_what_is_exhausted_is_promised(swish):
    """An engine that is right on the entries, and wrong in the network, breaks a promise."""
    model, data = swish
    wrong = faithful(model)

    def engine(feeds):
        return {table_of(model).output.removesuffix("__float") + "__q": next(iter(wrong(feeds).values())) * 0}

    result = check_engines(
        model, [{"x": data}], ("oracle", "mine"), {"mine": engine}, exhaust=exhaust(model, ("oracle", "ort"), {})
    )
    assert [found.tensor for found in result.differences] == ["f__q"] and not result.ok


def test_a_quantizer_inside_makes_two_tables():
    """The lowered graph shows one function; the quantized one has a rounding in the middle."""
    model, _ = network("t = Tanh(x) f = Sigmoid(t)")
    lowered, graph = remove_qdq(model)
    behind = next(quantizer for quantizer in graph.quantizers if quantizer.value == "f")
    from dataclasses import replace

    middle = replace(behind, id="t", value="t", group="t", signed=True, exponent=-3)
    quantizers = list(graph.quantizers)
    quantizers.insert(quantizers.index(behind), middle)
    model = insert_qdq(lowered, type(graph)(graph.contract, tuple(quantizers)))
    tables = make_plan(model).tables
    first, second = (cut_out(tables[name]) for name in ("t__float", "f__float"))
    assert [node.op_type for node in second.graph] == [
        "QuantizeLinear", "DequantizeLinear", "Sigmoid", "QuantizeLinear", "DequantizeLinear",
    ]  # fmt: skip
    assert [quantizer.exponent for quantizer in quantizers_of(second).quantizers] == [-3, behind.exponent]
    assert [node.op_type for node in first.graph][2] == "Tanh"


def test_only_entries_that_occur_are_run():
    """A square root behind a rectifier: no negative number can reach it."""
    model, _ = network("r = Clip(x, zero, two) q = Sqrt(r) f = Mul(q, half)", [("zero", 0), ("two", 2), ("half", 0.5)])
    certificate = table_of(model)
    seen = []

    def engine(alone):
        inner = faithful(alone)
        return lambda feeds: seen.append(next(iter(feeds.values()))) or inner(feeds)

    exhaust(model, ("oracle", "mine"), {"mine": engine})([replace(certificate, undecided=(5,))])
    low, high = certificate.entries
    assert sorted({x.size for x in seen}) == sorted({LANES * (high - low + 1), 3, (high - low + 1) % 3 or 3, 1})
    assert {x.ndim for x in seen} == {3}
