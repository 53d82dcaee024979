"""The recipe as a whole, and what holds for every pass of the table."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import SOURCE_KEY
from tqt_onnx.passes import optimize
from tqt_onnx.passes.base import run_passes
from tqt_onnx.passes.optimization import OPTIMIZE, OPTIMIZE_PASSES

RNG = np.random.default_rng(11)
FIRST, LAST = "Transpose<perm = [0,3,1,2]>", "Transpose<perm = [0,2,3,1]>"


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def batch_norm(name: str, channels: int) -> dict[str, np.ndarray]:
    return {
        f"{name}g": normal(channels),
        f"{name}b": normal(channels),
        f"{name}m": normal(channels),
        f"{name}v": abs(normal(channels)),
    }


RELU6 = {"zero": np.float32(0), "six": np.float32(6)}

GRAPHS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "mobilenet": (  # rescaling in NHWC, padding, depthwise, relu6 in two spellings, mean, head as 1x1 convolution
        f"""g (float[n,8,8,3] image) => (float[n,5] probabilities)
        {{ k = Constant<value_float = 0.0078125>() s = Mul(image, k) o = Sub(s, one) p = Pad(o, pads) t = {FIRST}(p)
           c = Conv<strides = [2,2], auto_pad = "VALID">(t, w) n1 = BatchNormalization(c, ag, ab, am, av) r = Clip(n1, zero, six)
           d = Conv<auto_pad = "SAME_UPPER", group = 4>(r, dw) n2 = BatchNormalization(d, bg, bb, bm, bv)
           u = {LAST}(n2) mx = Max(u, zero) r2 = Min(mx, six) h = ReduceMean<keepdims = 1>(r2, hw) t2 = {FIRST}(h)
           l = Conv(t2, lw, lb) v = {LAST}(l) sh = Shape(v) b0 = Slice(sh, i0, i1) tg = Concat<axis = 0>(b0, five)
           f = Reshape(v, tg) probabilities = Softmax(f) }}""",
        {
            **RELU6, **batch_norm("a", 4), **batch_norm("b", 4), "one": np.float32(1), "hw": np.int64([1, 2]),
            "five": np.int64([5]),
            "pads": np.int64([0, 0, 0, 0, 0, 1, 1, 0]), "i0": np.int64([0]), "i1": np.int64([1]), "w": normal(4, 3, 3, 3),
            "dw": normal(4, 1, 3, 3), "lw": normal(5, 4, 1, 1), "lb": normal(5),
        },
    ),
    "residual": (  # a forked relu, an identity shortcut, batch norm behind the sum, dense behind a flattening in NHWC
        f"""g (float[n,4,4,2] x) => (float[n,3] logits)
        {{ t = {FIRST}(x) c = Conv<pads = [1,1,1,1]>(t, w) a = Add(c, cb) r = Relu(a) d = Conv<pads = [1,1,1,1]>(r, v)
           s = Add(d, r) q = BatchNormalization(s, ag, ab, am, av) r2 = Relu(q) r3 = Relu(r2)
             p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r3)
           i = Identity(p) u = {LAST}(i) f = Flatten(u) m = MatMul(f, mw) mb = Add(m, b) g1 = Mul(mb, gg) g2 = Add(g1, gb)
             logits = Identity(g2) }}""",
        {
            **batch_norm("a", 2), "w": normal(2, 2, 3, 3), "v": normal(2, 2, 3, 3), "cb": normal(1, 2, 1, 1), "mw": normal(8, 3),
            "b": normal(3), "gg": normal(3), "gb": normal(3),
        },
    ),
    "image_to_image": (  # rank-4 output in NHWC: a transpose stays behind, the output keeps its name
        f"""g (float[n,5,6,2] x) => (float[n,5,6,2] y, float[n,2,5,6] inside)
        {{ t = {FIRST}(x) inside = Conv<auto_pad = "SAME_LOWER">(t, w) u = {LAST}(inside) y = Sigmoid(u) }}""",
        {"w": normal(2, 2, 3, 2)},
    ),
    "branches": (  # concatenated branches of different spelling, hard sigmoid gate
        f"""g (float[n,4,4,2] x) => (float[n,4] y)
        {{ t = {FIRST}(x) a = Conv(t, w) b = Conv(t, v) an = Mul(a, ga) bn = BatchNormalization(b, bg, bb, bm, bv)
          al = LeakyRelu(an)
           br = Max(bn, zero) au = {LAST}(al) bu = {LAST}(br) c = Concat<axis = 3>(au, bu) cs = Add(c, three)
             cl = Clip(cs, zero, six)
           ch = Mul(cl, sixth) cg = Mul(c, ch) y = ReduceMean<keepdims = 0>(cg, hw) }}""",
        {
            **RELU6, **batch_norm("b", 2), "w": normal(2, 2, 1, 1), "v": normal(2, 2, 1, 1), "ga": normal(2, 1, 1),
            "hw": np.int64([1, 2]),
            "three": np.float32(3), "sixth": np.float32(1 / 6),
        },
    ),
    "last_node_is_a_bias": (
        f"g (float[n,3,3,2] x) => (float[n,3,3,2] y) {{ t = {FIRST}(x) c = Conv(t, w) u = {LAST}(c) y = Add(u, b) }}",
        {"w": normal(2, 2, 1, 1), "b": normal(2)},
    ),
    "sequence": (  # Conv1D with bias and batch norm, max pool, mean over time
        """g (float[n,3,8] x) => (float[n,2] y)
        { u = Unsqueeze(x, two) c = Conv<pads = [0,1,0,1]>(u, w) s = Squeeze(c, two) a = Add(s, cb) v = Unsqueeze(a, two)
          b = BatchNormalization(v, ag, ab, am, av) t = Squeeze(b, two) r = Relu(t) p = Unsqueeze(r, two)
          q = MaxPool<kernel_shape = [1,2], strides = [1,2]>(p) z = Squeeze(q, two) h = ReduceMean<keepdims = 0>(z, two)
          n = BatchNormalization(h, bg, bb, bm, bv) m = MatMul(n, mw) y = Mul(m, half) }""",
        {
            **batch_norm("a", 4), **batch_norm("b", 4), "two": np.int64([2]), "w": normal(4, 3, 1, 3), "cb": normal(4, 1),
            "mw": normal(4, 2), "half": np.float32(0.5),
        },
    ),
    "pre_activation": (  # batch norms in front, in a row, behind padding and behind a transposed convolution
        """g (float[n,2,6,6] x) => (float[n,3,12,12] y, float[n,2] v)
        { s = Mul(x, f) n1 = BatchNormalization(s, ag, ab, am, av) c = Conv(n1, w) p = Pad(c, pads)
          n2 = BatchNormalization(p, bg, bb, bm, bv) n3 = BatchNormalization(n2, bg, bb, bm, bv) r = Relu(n3)
          d = ConvTranspose<strides = [2,2], pads = [2,2,2,2]>(r, dw) a = Add(d, db) y = BatchNormalization(a, cg, cb, cm, cv)
          h = ReduceMean<keepdims = 0>(x, hw) e = Relu(h) v = BatchNormalization(e, ag, ab, am, av) }""",
        {
            **batch_norm("a", 2), **batch_norm("b", 4), **batch_norm("c", 3), "f": normal(2, 1, 1), "w": normal(4, 2, 1, 1),
            "pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "dw": normal(4, 3, 2, 2), "db": normal(3, 1, 1), "hw": np.int64([2, 3]),
        },
    ),
    "nothing_to_do": ("g (float[n,3] x) => (float[n,3] y) { y = Softmax(x) }", {}),
}  # fmt: skip

EXPECTED = {
    "mobilenet": ["Transpose", "Conv", "Conv", "Clip", "Conv", "Clip", "GlobalAveragePool", "Conv", "Reshape", "Softmax"],
    "residual": ["Transpose", "Conv", "Relu", "Conv", "Add", "Conv", "Relu", "MaxPool", "Flatten", "Gemm"],
    "image_to_image": ["Transpose", "Conv", "Sigmoid", "Transpose"],
    "branches": [
        "Transpose",
        "Conv",
        "Conv",
        "LeakyRelu",
        "Relu",
        "Concat",
        "Add",
        "Clip",
        "Mul",
        "Mul",
        "GlobalAveragePool",
        "Flatten",
    ],
    "last_node_is_a_bias": ["Transpose", "Conv", "Transpose"],
    "sequence": ["Unsqueeze", "Conv", "Relu", "MaxPool", "GlobalAveragePool", "Flatten", "Gemm"],
    "pre_activation": [
        *("Conv", "Conv", "Relu", "ConvTranspose"),
        *("GlobalAveragePool", "Relu", "Conv", "Reshape"),
    ],
    "nothing_to_do": ["Softmax"],
}


def types(model: onnx_ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("name", GRAPHS)
def test_the_recipe_keeps_numbers_and_boundary(rewritten, name):
    model = rewritten(list(OPTIMIZE), *GRAPHS[name])
    assert types(model) == EXPECTED[name]
    text = onnx_ir.to_onnx_text(model)
    assert optimize(model) is False
    assert onnx_ir.to_onnx_text(model) == text
    for node in model.graph:
        for value in node.outputs:
            assert value.dtype is not None and value.shape is not None
            assert not isinstance(value.shape[0], int) and all(isinstance(dim, int) for dim in value.shape[1:]), value.name


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("step", OPTIMIZE_PASSES, ids=lambda step: step.name)
def test_every_pass_alone_is_right_idempotent_and_exact_about_it(rewritten, onnx_text, step, name):
    """Anywhere in a recipe: alone on the raw graph, and behind the recipe up to its place."""
    place = next(index for index, entry in enumerate(OPTIMIZE) if isinstance(entry, step))
    for before in ([], list(OPTIMIZE[:place])):
        model = onnx_text(*GRAPHS[name])
        run_passes(model, before)
        text = onnx_ir.to_onnx_text(model)
        changed = step().apply(model.clone())
        rewritten([step()], model)
        once = onnx_ir.to_onnx_text(model)
        assert changed is (once != text)
        assert step().apply(model) is False
        assert onnx_ir.to_onnx_text(model) == once


def test_batch_norms_are_kept_for_training(rewritten, onnx_text):
    model = onnx_text(*GRAPHS["mobilenet"])
    optimize(model, keep_batch_norm=True)
    assert types(model)[:4] == ["Transpose", "Conv", "Conv", "BatchNormalization"]
    folded = onnx_text(*GRAPHS["mobilenet"])
    optimize(folded)
    rewritten(list(OPTIMIZE), model)  # B0: folding later gives what folding at once gives, bit for bit
    assert types(model) == types(folded)
    for name, value in folded.graph.initializers.items():
        assert (value.const_value.numpy() == model.graph.initializers[name].const_value.numpy()).all(), name


def test_weights_keep_their_names(onnx_text):
    model = onnx_text(*GRAPHS["mobilenet"])
    optimize(model)
    weights = [node.inputs[1].name for node in model.graph if node.op_type == "Conv"]
    assert weights == ["k", "w", "dw", "lw"]


def test_sources_survive(onnx_text):
    model = onnx_text(*GRAPHS["residual"])
    for node in model.graph:
        node.metadata_props[SOURCE_KEY] = f"tf/{node.outputs[0].name}"
    optimize(model)
    assert all(node.metadata_props.get(SOURCE_KEY, "").startswith("tf/") for node in model.graph)


def test_names_are_unique_and_passes_frozen():
    assert len({step.name for step in OPTIMIZE_PASSES}) == len(OPTIMIZE_PASSES)
    assert all(dataclasses.is_dataclass(step) and step.__dataclass_params__.frozen for step in OPTIMIZE_PASSES)
    assert {type(step) for step in OPTIMIZE} == set(OPTIMIZE_PASSES)


def test_a_deep_graph_takes_linear_time(onnx_text):
    """800 layers: no recursion limit; and 4 times the layers cost far less than 16 times the time (quadratic)."""
    times = []
    for depth in (200, 800):
        body = " ".join(f"c{i} = Conv(v{i}, w{i}) a{i} = Add(c{i}, b{i}) v{i + 1} = Relu(a{i})" for i in range(depth))
        arrays = {f"w{i}": normal(1, 1, 1, 1) for i in range(depth)} | {f"b{i}": normal(1, 1, 1) for i in range(depth)}
        model = onnx_text(f"g (float[n,1,2,2] x) => (float[n,1,2,2] y) {{ v0 = Identity(x) {body} y = Neg(v{depth}) }}", arrays)
        start = time.perf_counter()
        optimize(model)
        times.append(time.perf_counter() - start)
        assert types(model) == ["Conv", "Relu"] * depth + ["Neg"]
    assert times[1] < 10 * times[0] + 0.5


@pytest.mark.real
@pytest.mark.parametrize("file", ["mobilenet_v1_0.25_128_frozen.pb", "resnet8_cifar10.h5"])
def test_real_networks_have_only_the_operators_of_the_road(rewritten, data, file):
    frontend = pytest.importorskip("tqt_onnx.frontend_tf")
    model = frontend.to_onnx(frontend.load(data / "models" / file))
    rewritten(list(OPTIMIZE), model)
    allowed = {
        "Conv",
        "Relu",
        "Clip",
        "Add",
        "AveragePool",
        "GlobalAveragePool",
        "MaxPool",
        "Gemm",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Softmax",
    }
    assert set(types(model)) <= allowed | {"Transpose"}
    assert types(model).count("Transpose") == 1 and types(model)[0] == "Transpose"
    adds = [node for node in model.graph if node.op_type == "Add"]
    assert not any(value.is_initializer() for node in adds for value in node.inputs)
