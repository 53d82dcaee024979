"""The end of a layer in one pass: natively, under XLA and operator by operator the same numbers, masks and, nearly, sums."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from rounding_masks import MASKS

from tqt_onnx.kernels import epilogue, fixed_point, native, tqt
from tqt_onnx.kernels.epilogue import Rounding, composed

SHAPES = [(3, 5, 7, 6), (2, 33, 17, 40), (4, 300), (1, 1), (0, 4, 4, 3), (70, 257)]
FORMS = [(first, kind, relu) for first in (True, False) for kind in ("none", "channels", "tensor") for relu in (True, False)]


@pytest.fixture(params=["native", "xla"])
def road(request, monkeypatch):
    """`epilogue` on one of its roads, within a traced function where that is XLA's."""
    if request.param == "native":
        if native.operators() is None:
            pytest.skip("no native operators")
        return epilogue.epilogue
    monkeypatch.setattr(native, "operators", lambda: None)

    def compiled(x, second, *, first=None, addend=None, relu=False):
        def run(tensors):
            inner = None if first is None else replace(first, exponent=tensors["first"])
            outer = replace(second, exponent=tensors["second"])
            return epilogue.epilogue(tensors["x"], outer, first=inner, addend=tensors.get("addend"), relu=relu)

        found = {"x": x, "second": second.exponent, "first": first and first.exponent, "addend": addend}
        return tf.function(run, autograph=False)({name: tensor for name, tensor in found.items() if tensor is not None})

    return compiled


def problem(shape, first, kind, seed=0, signed=False, limit=None):
    """Sums that meet ties, both borders of both quantizers, and infinities."""
    random = np.random.default_rng(seed)
    x = random.integers(-(2**16), 2**16, shape).astype(np.float32) / 2**10 * random.choice([1, 1, 0.5, 1.5], shape)
    if x.size > 8:
        x.flat[:6] = [np.inf, -np.inf, 3e38, 1e-40, -0.0, 31.999999]
    addend = {"none": None, "channels": random.integers(-900, 900, shape[-1:]), "tensor": random.integers(-900, 900, shape)}[kind]
    addend = None if addend is None else tf.constant(addend.astype(np.float32) / 2**9)
    inner = Rounding(tf.constant(-9.0), 14, True) if first else None
    return tf.constant(x.astype(np.float32)), Rounding(tf.constant(-3.0), 8, signed, limit), inner, addend


def slopes(function, x, second, first, addend, relu, weights):
    """The result and its gradients by x, the addend and both exponents."""
    exponents = [rounding.exponent for rounding in (first, second) if rounding is not None]
    sources = [x, *exponents, *([] if addend is None else [addend])]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        y = function(x, second, first=first, addend=addend, relu=relu)
    return [y, *tape.gradient(y, sources, weights)]


@pytest.mark.parametrize(("first", "kind", "relu"), FORMS)
def test_every_form_equals_the_operators_one_by_one(road, first, kind, relu):
    for seed, (shape, signed, limit) in enumerate([(SHAPES[0], True, None), (SHAPES[1], False, 6.0)]):
        x, second, inner, addend = problem(shape, first, kind, seed, signed, limit)
        weights = tf.constant(np.random.default_rng(9).normal(size=shape).astype(np.float32))
        actual = slopes(road, x, second, inner, addend, relu, weights)
        expected = slopes(composed, x, second, inner, addend, relu, weights)
        assert actual[0].numpy().tobytes() == expected[0].numpy().tobytes()
        assert (actual[1].numpy() == expected[1].numpy()).all()  # T2
        if kind == "tensor":
            assert (actual[-1].numpy() == expected[-1].numpy()).all()
        for mine, other in zip(actual[2:], expected[2:], strict=True):  # T3: sums in another order
            assert np.abs(mine - other).max() <= 1e-4 * (1 + np.abs(other).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_equals_the_specification(road, shape):
    x, second, first, bias = problem(shape, True, "channels")
    y = road(x, second, first=first, addend=bias, relu=True).numpy()
    inner = fixed_point.fake_quantize(x.numpy(), -9, 14, True)
    expected = fixed_point.fake_quantize(np.maximum(inner + bias.numpy(), 0), -3, 8, False)
    assert y.shape == shape
    assert y.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("bits", "signed"), itertools.product(range(2, 17), [True, False]))
def test_ties_borders_and_extremes_equal_the_specification(road, bits, signed):
    """Behind the sum with zeros, which changes nothing: a quantizer alone is not compiled by XLA."""
    lowest, highest = fixed_point.bounds(bits, signed)
    steps = np.concatenate([np.arange(-20, 20) / 2, lowest + np.arange(-4, 5) / 2, highest + np.arange(-4, 5) / 2])
    for exponent in (tqt.MIN_EXPONENT, -7, 0, 3, tqt.MAX_EXPONENT):
        grid = np.ldexp(steps, exponent).astype(np.float32)
        around = [np.nextafter(grid, np.float32(end)) for end in (np.inf, -np.inf)]
        special = np.float32([-0.0, 1e-45, -1e-40, 2**-127, np.inf, -np.inf, 3e38, 6.0, 5.9999995, 6.0000005])
        x = np.concatenate([grid, *around, special]).reshape(-1, 2)
        expected = fixed_point.fake_quantize(x, exponent, bits, signed)
        rounding = Rounding(tf.constant(float(exponent)), bits, signed)
        assert road(tf.constant(x), rounding, addend=tf.zeros([2])).numpy().tobytes() == expected.tobytes()
        assert epilogue.epilogue(tf.constant(x), rounding).numpy().tobytes() == expected.tobytes()
        if not signed and -7 <= exponent <= 3:
            upper = min(highest, int(np.rint(math.ldexp(6.0, -exponent))))
            limited = road(tf.constant(x), replace(rounding, limit=6.0), addend=tf.zeros([2]))
            assert limited.numpy().tobytes() == fixed_point.fake_quantize(x, exponent, bits, signed, upper).tobytes()


@pytest.mark.parametrize(("bits", "signed", "limit", "steps", "expected"), MASKS)
def test_the_mask_is_on_the_rounded_value_inclusive(road, bits, signed, limit, steps, expected):
    x = np.ldexp(np.float64(steps), -5).astype(np.float32)[:, None]
    rounding = Rounding(tf.constant(-5.0), bits, signed, limit)
    _, slope, *_ = slopes(road, tf.constant(x), rounding, None, tf.zeros([1]), False, tf.ones(x.shape))
    assert slope.numpy()[:, 0].tolist() == expected


def test_without_native_operators_xla_compiles(monkeypatch):
    """In traced functions, where training runs; a quantizer alone gains nothing by it."""
    monkeypatch.setattr(native, "operators", lambda: None)
    rounding = Rounding(tf.constant(-5.0), 8, True)
    traced = tf.function(lambda x: epilogue.epilogue(epilogue.epilogue(x, rounding), rounding, relu=True), autograph=False)
    graph = traced.get_concrete_function(tf.TensorSpec([3])).graph
    calls = [op for op in graph.get_operations() if "PartitionedCall" in op.type]
    assert ["_XlaMustCompile" in op.node_def.attr for op in calls] == [False, True]


def test_sums_equal_a_float64_reference(road, request):
    """2^20 numbers: XLA adds float32 to float32, the native operator does so only within 64 terms."""
    precision = 1e-6 if "native" in request.node.name else 1e-4
    shape, random = (64, 32, 32, 16), np.random.default_rng(0)
    x = random.normal(size=shape).astype(np.float32) * 2 + 0.5
    weights = random.random(size=shape).astype(np.float32)
    bias = (random.integers(-900, 900, 16) / 2**9).astype(np.float32)
    first, second = Rounding(tf.constant(-9.0), 12, True), Rounding(tf.constant(-6.0), 8, False)
    actual = slopes(road, tf.constant(x), second, first, tf.constant(bias), True, tf.constant(weights))
    scaled = x.astype(np.float64) * 2**9
    inside = np.abs(np.rint(scaled) + 0.5) <= 2**11
    inner = np.clip(np.rint(scaled), -(2**11), 2**11 - 1)
    total = inner / 2**9 + bias
    outer = np.maximum(total, 0) * 2**6
    passes = weights.astype(np.float64) * (np.rint(outer) <= 255) * (total > 0)
    step = np.where(np.rint(outer) <= 255, np.rint(outer) - outer, 255)
    assert np.array_equal(actual[1].numpy(), passes * inside)
    expected = [
        (passes * np.where(inside, inner - scaled, inner)).sum() * 2**-9 * math.log(2),
        (weights * step).sum() * 2**-6 * math.log(2),
        passes.sum((0, 1, 2)),
    ]
    for mine, other in zip(actual[2:], expected, strict=True):
        assert np.abs(mine - other).max() <= precision * np.abs(other).max()


@pytest.mark.parametrize(("value", "exponent"), [(np.nan, 0.0), (1.0, np.nan), (1.0, 104.0), (1.0, -103.0)])
def test_what_is_not_a_number_stays_visible(road, value, exponent):
    good, bad = Rounding(tf.constant(-4.0), 8, True), Rounding(tf.constant(exponent), 8, True)
    x = tf.fill([3, 2], np.float32(value))
    assert np.isnan(road(x, bad, relu=True)).all()
    assert np.isnan(road(x, good, first=bad, addend=tf.zeros([2]))).all()


def test_inputs_are_not_written_to(road):
    x, second, first, bias = problem((3, 5, 7, 6), True, "channels")
    kept, weights = x.numpy().copy(), tf.ones(x.shape)
    slopes(road, x, second, first, bias, True, weights)
    slopes(road, x, second, first, x, True, weights)  # x + x
    assert x.numpy().tobytes() == kept.tobytes()
    assert (weights.numpy() == 1).all()


def test_shapes_that_do_not_fit_are_refused():
    if native.operators() is None:
        pytest.skip("no native operators")
    rounding = Rounding(tf.constant(-4.0), 8, True)
    for addend in (tf.zeros([3]), tf.zeros([5, 3])):
        with pytest.raises(tf.errors.InvalidArgumentError, match="do not fit"):
            epilogue.epilogue(tf.zeros([5, 4]), rounding, addend=addend)


def sums() -> str:
    """The bits of the gradients of a bias and two thresholds."""
    random = np.random.default_rng(0)
    x, weights = (tf.constant(random.normal(size=(8, 64, 64, 24)).astype(np.float32)) for _ in range(2))
    first, second = Rounding(tf.constant(-9.0), 12, True), Rounding(tf.constant(-6.0), 8, False)
    found = slopes(epilogue.epilogue, x, second, first, tf.constant(random.normal(size=24).astype(np.float32)), True, weights)
    return b"".join(part.numpy().tobytes() for part in found[2:]).hex()


def test_sums_have_the_same_bits_for_any_number_of_threads():
    if native.operators() is None:
        pytest.skip("no native operators")
    script = "import runpy, sys, tensorflow as tf; tf.config.threading.set_intra_op_parallelism_threads(5); "
    script += "print(runpy.run_path(sys.argv[1])['sums']())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # what this file imports from tests/support
    command = [sys.executable, "-c", script, __file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split()[-1] == sums()
