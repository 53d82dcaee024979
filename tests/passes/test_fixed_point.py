"""The recipe is a fixed point: what it leaves, it leaves alone, so that one file gives one set of integers by any road."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.passes import OPTIMIZE, optimize

NORM = {name: np.float32(values) for name, values in {"g": (0.5, -2), "b": (1, 3), "m": (0.25, 1), "v": (2, 0.5)}.items()}
KINDS = ("norm", "norm", "Mul", "Add", "Sub", "Div", "conv", "conv", "depthwise", "deconv", "Relu", "Pad", "Concat")


class Network:
    """ONNX text of a chain over tensors [n, C, h, w], with per-channel numbers of three forms, padding and forks."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.body: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.channels, self.value = int(self.rng.integers(1, 4)), "x"
        self.first = self.channels
        self.outputs: list[str] = []
        for _ in range(int(self.rng.integers(2, 8))):
            self.step(str(self.rng.choice(KINDS)))
            if self.rng.random() < 0.07:
                self.outputs.append(self.value)
        self.outputs = list(dict.fromkeys([*self.outputs, self.value]))

    def text(self) -> str:
        outputs = ", ".join(f"float[n,c{i},h{i},w{i}] {name}" for i, name in enumerate(self.outputs))
        return f"g (float[n,{self.first},9,9] x) => ({outputs}) {{ {' '.join(self.body)} }}"

    def array(self, *shape: int, positive: bool = False) -> str:
        name = f"k{len(self.arrays)}"
        numbers = self.rng.normal(size=shape)
        self.arrays[name] = (abs(numbers) + 0.1 if positive else numbers).astype(np.float32)
        return name

    def number(self) -> str:
        shapes = ((1, self.channels, 1, 1), (self.channels, 1, 1), ())
        return self.array(*shapes[int(self.rng.integers(3))])

    def step(self, kind: str) -> None:
        c, old, new = self.channels, self.value, f"v{len(self.body)}"
        out = int(self.rng.integers(1, 5))
        if kind == "norm":
            call = f"BatchNormalization({old}, {', '.join(self.array(c) for _ in range(3))}, {self.array(c, positive=True)})"
        elif kind in ("Mul", "Add", "Sub"):
            call = f"{kind}({old}, {self.number()})" if self.rng.random() < 0.6 else f"{kind}({self.number()}, {old})"
        elif kind == "Div":
            call = f"Div({old}, {self.number()})"
        elif kind == "conv":
            pad = int(self.rng.integers(2))
            bias = f", {self.array(out)}" if self.rng.random() < 0.5 else ""
            call = f"Conv<pads = [{pad},{pad},{pad},{pad}]>({old}, {self.array(out, c, 1 + 2 * pad, 1 + 2 * pad)}{bias})"
            self.channels = out
        elif kind == "depthwise":
            call = f"Conv<group = {c}, pads = [1,1,1,1]>({old}, {self.array(c, 1, 3, 3)})"
        elif kind == "deconv":
            call = f"ConvTranspose<strides = [2,2]>({old}, {self.array(c, out, 2, 2)})"
            self.channels = out
        elif kind == "Pad":
            name = f"k{len(self.arrays)}"
            self.arrays[name] = np.int64([0, 0, 1, 1, 0, 0, 1, 1])
            call = f"Pad({old}, {name})"
        elif kind == "Concat":
            call = f"Concat<axis = 1>({old}, {old})"
            self.channels = 2 * c
        else:
            call = f"Relu({old})"
        self.body.append(f"{new} = {call}")
        self.value = new


@pytest.mark.parametrize("keep", [False, True], ids=["folded", "kept"])
def test_random_networks(onnx_text, keep):
    for seed in range(200):
        network = Network(seed)
        model = onnx_text(network.text(), network.arrays)
        optimize(model, keep_batch_norm=keep)
        once = onnx_ir.to_onnx_text(model)
        assert optimize(model, keep_batch_norm=keep) is False, (seed, network.text())
        assert onnx_ir.to_onnx_text(model) == once, seed


@pytest.mark.parametrize("seed", range(25))
def test_random_networks_keep_numbers_boundary_and_meaning(rewritten, seed):
    network = Network(1000 + seed)
    rewritten(list(OPTIMIZE), network.text(), network.arrays)


def test_a_term_and_a_batch_norm_without_a_layer_are_one_layer(rewritten):
    text = "g (float[n,2,3,3] x) => (float[n,2,3,3] y) { r = Relu(x) a = Add(r, t) y = BatchNormalization(a, g, b, m, v) }"
    model = rewritten(list(OPTIMIZE), text, NORM | {"t": np.float32([[[0.5]], [[-1]]])})
    assert [node.op_type for node in model.graph] == ["Relu", "Conv"]


def test_all_padding_in_front_of_a_new_layer_goes_into_it(rewritten):
    body = "r = Relu(x) p = Pad(r, s) q = Pad(p, s) y = BatchNormalization(q, g, b, m, v)"
    model = rewritten(
        list(OPTIMIZE), f"g (float[n,2,3,3] x) => (float[n,2,7,7] y) {{ {body} }}", NORM | {"s": np.int64([0, 0, 1, 1, 0, 0, 1, 1])}
    )
    assert [node.op_type for node in model.graph] == ["Relu", "Conv"]
