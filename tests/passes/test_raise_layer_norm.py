"""Normalizations of small operators: one operator for their statistics, however they were written."""

import numpy as np
import pytest

from tqt_onnx.passes.raise_layer_norm import RaiseLayerNorm

GAMMA = np.asarray([1.5, -0.5, 2, 1], np.float32)
BETA = np.asarray([0.25, 0, -1, 3], np.float32)
EPSILON = np.asarray(1e-3, np.float32)

SIGNATURE = "g (float[n,5,4] x) => (float[n,5,4] y)"
STATISTICS = """
    m = ReduceMean<keepdims = 1>(x, last) d = Sub(x, m) s = Mul(d, d) v = ReduceMean<keepdims = 1>(s, last) e = Add(v, eps)
"""
FORMS = {
    "as in a paper": "r = Sqrt(e) h = Div(d, r) k = Mul(h, gamma) y = Add(k, beta)",
    "with a reciprocal": "q = Sqrt(e) r = Reciprocal(q) k = Mul(gamma, r) h = Mul(d, k) y = Add(beta, h)",
    "folded, Neg": "q = Sqrt(e) r = Reciprocal(q) k = Mul(r, gamma) a = Mul(x, k)"
    " w = Neg(m) b = Mul(w, k) c = Add(b, beta) y = Add(a, c)",
    "folded, Sub": "q = Sqrt(e) r = Reciprocal(q) k = Mul(r, gamma) a = Mul(x, k) b = Mul(m, k) c = Sub(beta, b) y = Add(a, c)",
}


def constants(text=""):
    """Those that a text reads."""
    arrays = {"gamma": GAMMA, "beta": BETA, "eps": EPSILON, "last": np.asarray([-1]), "first": np.asarray([0])}
    return {name: array for name, array in arrays.items() if name in text}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_one_operator_however_it_is_written(golden, form):
    golden(
        RaiseLayerNorm(),
        f"{SIGNATURE} {{ {STATISTICS} {FORMS[form]} }}",
        f"{SIGNATURE} {{ y = LayerNormalization<axis = -1, epsilon = 0.0010000000474974513>(x, y__gamma, y__beta) }}",
        arrays=constants("eps last gamma beta"),
        after_arrays={"y__gamma": GAMMA, "y__beta": BETA},
    )


def test_the_variance_may_be_a_difference_of_means(golden):
    golden(
        RaiseLayerNorm(),
        f"""{SIGNATURE} {{
            m = ReduceMean<keepdims = 1>(x, last) s = Pow(x, two) q = ReduceMean<keepdims = 1>(s, last) mm = Mul(m, m)
            v = Sub(q, mm) e = Add(v, eps) r = Sqrt(e) d = Sub(x, m) h = Div(d, r) k = Mul(h, gamma) y = Add(k, beta)
        }}""",
        f"{SIGNATURE} {{ y = LayerNormalization<axis = -1, epsilon = 0.0010000000474974513>(x, y__gamma, y__beta) }}",
        arrays=constants("eps last gamma beta") | {"two": np.asarray(2, np.float32)},
        after_arrays={"y__gamma": GAMMA, "y__beta": BETA},
    )


def test_other_axes_come_last_for_the_operator(golden):
    signature = "g (float[n,4,2,3] x) => (float[n,4,2,3] y)"
    golden(
        RaiseLayerNorm(),
        f"{signature} {{ {STATISTICS} r = Sqrt(e) y = Div(d, r) }}",
        f"""{signature} {{
            y__axes_last = Transpose<perm = [0, 2, 3, 1]>(x)
            y__normalized = LayerNormalization<axis = -1, epsilon = 0.0010000000474974513>(y__axes_last, y__gamma)
            y = Transpose<perm = [0, 3, 1, 2]>(y__normalized)
        }}""",
        arrays=constants("eps") | {"last": np.asarray([1])},
        after_arrays={"y__gamma": np.ones(4, np.float32)},
    )


def test_height_and_width_are_an_instance_normalization(golden):
    signature = "g (float[n,4,2,3] x) => (float[n,4,2,3] y)"
    golden(
        RaiseLayerNorm(),
        f"{signature} {{ {STATISTICS} r = Sqrt(e) h = Div(d, r) k = Mul(h, gamma) y = Add(k, beta) }}",
        f"{signature} {{ y = InstanceNormalization<epsilon = 0.0010000000474974513>(x, y__gamma, y__beta) }}",
        arrays=constants("eps gamma beta")
        | {"last": np.asarray([2, 3]), "gamma": GAMMA.reshape(4, 1, 1), "beta": BETA.reshape(4, 1, 1)},
        after_arrays={"y__gamma": GAMMA, "y__beta": BETA},
    )


def test_without_a_mean_it_is_a_quotient(golden):
    golden(
        RaiseLayerNorm(),
        f"""{SIGNATURE} {{
            s = Mul(x, x) v = ReduceSum<keepdims = 1>(s, last) f = Max(v, eps) q = Sqrt(f) r = Reciprocal(q) y = Mul(x, r)
        }}""",
        f"""{SIGNATURE} {{
            y__squares = ReduceSumSquare<keepdims = 1>(x, y__axes) y__max = Max(y__squares, y__epsilon)
            y__root = Sqrt(y__max) y = Div(x, y__root)
        }}""",
        arrays=constants("eps last"),
        after_arrays={"y__axes": np.asarray([2]), "y__epsilon": EPSILON},
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(STATISTICS + "r = Sqrt(v) h = Div(d, e) y = Add(h, r)", id="a quotient of the variance itself"),
        pytest.param(STATISTICS + "w = Relu(e) r = Sqrt(w) y = Div(d, r)", id="a function in between"),
        pytest.param("m = ReduceMean<keepdims = 1>(x, last) y = Sub(x, m)", id="no variance"),
        pytest.param("m = ReduceMean<keepdims = 1>(x, first) d = Sub(x, m) s = Mul(d, d) v = ReduceMean<keepdims = 1>(s, first)"
                     " r = Sqrt(v) y = Div(d, r)", id="over the batch"),
    ],
)  # fmt: skip
def test_left_as_it_is(untouched, body):
    untouched(RaiseLayerNorm(), f"{SIGNATURE} {{ {body} }}", arrays=constants(body))


def test_statistics_that_others_read_stay(untouched):
    text = "g (float[n,5,4] x) => (float[n,5,4] y, float[n,5,1] v) {" + STATISTICS + "r = Sqrt(e) y = Div(d, r) }"
    untouched(RaiseLayerNorm(), text, arrays=constants(text))
