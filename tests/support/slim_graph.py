"""Frozen graphs as TF-Slim and its contemporaries leave them: true node names, random weights that keep signals alive at any depth.

How it is used:

    net = SlimGraph(size=64)                       # placeholder "input", (None, 64, 64, 3)
    with net.scope("MobilenetV1"), net.scope("MobilenetV1"):
        x = net.layer(net.input, "Conv2d_0", 32, 3, stride=2, activation="Relu6")     # conv, batch norm, relu6
        x = net.layer(x, "Conv2d_1_depthwise", None, 3, activation="Relu6")           # channels None: depthwise
    with net.scope("Logits"):
        x = net.avg_pool(x, "AvgPool_1a", 2, 1, "VALID")                              # node Logits/AvgPool_1a/AvgPool
        x = net.layer(x, "Conv2d_1c_1x1", 1001, 1, norm=False, activation=None)       # without a norm: with a bias
        x = net.squeeze(x, "SpatialSqueeze")
    net.softmax(x, "Predictions")                  # Predictions/{Reshape, Shape, Softmax, Reshape_1}
    file = net.save(folder / "mobilenet.pb")

- `layer` is a slim layer with its scope; `conv`, `depthwise`, `norm`, `bias`, `activate` are its parts, in the scope that is open.
- Pools and `concat` make a scope or node of the name they are given, as slim does. `apply` adds any other operator.
- Weights: Const `scope/weights` and Identity `scope/weights/read`; norms: `BatchNorm/{gamma,beta,moving_mean,moving_variance}`.
- `parameters` counts what would be trained (weights, biases, gamma, beta), `count("Conv2D")` operators; `nodes` are names, types.
- Every operator also runs at once on two probe images: weights are scaled by a power of two so that the sums that they give
  have a root mean square near 1, whatever padding and resolution leave of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]

PROBES = 2


def images(size: int, count: int = 2, seed: int = 1, channels: int = 3) -> Array:
    """Random inputs in [-1, 1]: smooth patches with noise, so that neighbouring pixels agree as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (count, -(-size // 4), -(-size // 4), channels))
    fine = np.kron(coarse, np.ones((1, 4, 4, 1)))[:, :size, :size]
    return np.clip(fine + rng.normal(0, 0.2, fine.shape), -1, 1).astype(np.float32)


class SlimGraph:
    """What a network is put together with: every method adds operators and returns the tensor.

    Args:
        size: height and width of the input.
        name: of the placeholder.
        channels: of the input.
        seed: of weights and probes.
        epsilon: of the batch norms.
        variables: names of weights and biases; `tf.layers` calls them `("kernel", "bias")`.

    Attributes:
        input: the placeholder.
        parameters: numbers in weights, biases, gammas and betas so far.
    """

    def __init__(
        self,
        size: int,
        *,
        name: str = "input",
        channels: int = 3,
        seed: int = 0,
        epsilon: float = 1e-3,
        variables: tuple[str, str] = ("weights", "biases"),
    ) -> None:
        self.parameters = 0
        self._weights, self._biases = variables
        self._graph = tf.Graph()
        self._rng = np.random.default_rng(seed)
        self._path: list[str] = []
        self._epsilon = epsilon
        with self._graph.as_default():
            self.input = v1.placeholder(tf.float32, (None, size, size, channels), name=name)
        self._probes = {self.input.name: tf.constant(images(size, PROBES, seed, channels))}

    # Names and files.

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefixes names, `/` between; never made unique, as names of variable scopes are not."""
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    @property
    def nodes(self) -> dict[str, str]:
        """Name and type of every operator."""
        return {operator.name: operator.type for operator in self._graph.get_operations()}

    def count(self, *types: str) -> int:
        """How many operators are of these types."""
        return sum(operator.type in types for operator in self._graph.get_operations())

    def save(self, path: Path) -> Path:
        """Writes the frozen graph."""
        path.write_bytes(self._graph.as_graph_def().SerializeToString())
        return path

    # Operators, in the scope that is open.

    def apply(self, name: str, operator: Callable[..., Any], *tensors: Any) -> Any:
        """Adds `operator(*tensors, name=name)`, and runs it on the probes."""
        prefix = "/".join(self._path)
        with self._graph.as_default(), v1.name_scope(f"{prefix}/" if prefix else None):
            result = operator(*tensors, name=name)
        self._probes[result.name] = operator(*(self._probes[tensor.name] for tensor in tensors), name=None)
        return result

    def constant(self, name: str, array: Array, trained: bool = True) -> Any:
        """A frozen variable: Const `name` and Identity `name/read`."""
        self.parameters += array.size if trained else 0
        stored = self.apply(name, lambda name: tf.constant(array, name=name))
        return self.apply(f"{name}/read", tf.identity, stored)

    def conv(
        self,
        x: Any,
        channels: int,
        kernel: int | Sequence[int],
        stride: int = 1,
        padding: str = "SAME",
        name: str = "Conv2D",
        weights: str | None = None,
    ) -> Any:
        """`weights` and `Conv2D`, unless called otherwise."""
        shape = (*_pair(kernel), x.shape[-1], channels)
        operator = lambda x, w, name: tf.nn.conv2d(x, w, stride, padding, name=name)  # noqa: E731
        return self._weighted(x, weights or self._weights, shape, shape[0] * shape[1] * shape[2], name, operator)

    def depthwise(
        self,
        x: Any,
        kernel: int | Sequence[int],
        stride: int = 1,
        padding: str = "SAME",
        multiplier: int = 1,
        name: str = "depthwise",
    ) -> Any:
        """`depthwise_weights` and `depthwise`."""
        shape = (*_pair(kernel), x.shape[-1], multiplier)
        strides = (1, stride, stride, 1)
        operator = lambda x, w, name: tf.raw_ops.DepthwiseConv2dNative(  # noqa: E731
            input=x, filter=w, strides=strides, padding=padding, name=name
        )
        return self._weighted(x, "depthwise_weights", shape, shape[0] * shape[1], name, operator)

    def dense(self, x: Any, channels: int) -> Any:
        """`weights` and `MatMul`."""
        shape = (int(x.shape[-1]), channels)
        return self._weighted(x, self._weights, shape, shape[0], "MatMul", tf.matmul)

    def _weighted(self, x: Any, weights: str, shape: Sequence[Any], taps: int, name: str, operator: Callable[..., Any]) -> Any:
        values = self._rng.standard_normal(tuple(int(size) for size in shape), np.float32) * np.float32(taps**-0.5)
        sums = operator(self._probes[x.name], tf.constant(values), name=None)
        loudness = float(tf.sqrt(tf.reduce_mean(sums * sums)))
        # A power of two: the last bits of the sums, which depend on the machine's kernels, do not reach the weights.
        values = np.ldexp(values, -round(float(np.log2(loudness))))
        return self.apply(name, operator, x, self.constant(weights, values))

    def norm(self, x: Any, name: str = "BatchNorm", *, scale: bool = True, gain: float = 1.0, node: str = "FusedBatchNorm") -> Any:
        """A batch norm in a scope of its own; without a scale its gamma is a Const of ones called `Const`, as slim writes it."""
        channels = int(x.shape[-1])
        uniform = lambda low, high: self._rng.uniform(low, high, channels).astype(np.float32)  # noqa: E731
        normal = lambda: self._rng.normal(0, 0.3, channels).astype(np.float32)  # noqa: E731
        with self.scope(name):
            if scale:
                gamma = self.constant("gamma", uniform(0.5, 1.5) * np.float32(gain))
            else:
                gamma = self.apply("Const", lambda name: tf.constant(np.ones(channels, np.float32), name=name))
            beta = self.constant("beta", normal())
            mean = self.constant("moving_mean", normal(), trained=False)
            variance = self.constant("moving_variance", uniform(0.5, 2), trained=False)
            return self.apply(node, self._fused, x, gamma, beta, mean, variance)

    def _fused(self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, name: str | None) -> Any:
        options = {"epsilon": self._epsilon, "is_training": False, "name": name}
        return tf.raw_ops.FusedBatchNorm(x=x, scale=gamma, offset=beta, mean=mean, variance=variance, **options).y

    def bias(self, x: Any, node: str = "BiasAdd") -> Any:
        """`biases` and `BiasAdd`."""
        values = self._rng.normal(0, 0.3, int(x.shape[-1])).astype(np.float32)
        return self.apply(node, tf.nn.bias_add, x, self.constant(self._biases, values))

    def activate(self, x: Any, kind: str | None = "Relu", name: str | None = None) -> Any:
        """`Relu`, `Relu6`, or nothing."""
        operators = {"Relu": tf.nn.relu, "Relu6": tf.nn.relu6}
        return x if kind is None else self.apply(name or kind, operators[kind], x)

    # Slim layers: a scope of their own.

    def layer(
        self,
        x: Any,
        name: str,
        channels: int | None,
        kernel: int | Sequence[int],
        stride: int = 1,
        padding: str = "SAME",
        *,
        norm: bool = True,
        activation: str | None = "Relu",
        scale: bool = True,
        gain: float = 1.0,
    ) -> Any:
        """`slim.conv2d` (depthwise where `channels` is None): a norm, or else a bias, and the activation."""
        with self.scope(name):
            y = self.depthwise(x, kernel, stride, padding) if channels is None else self.conv(x, channels, kernel, stride, padding)
            y = self.norm(y, scale=scale, gain=gain) if norm else self.bias(y)
            return self.activate(y, activation)

    def max_pool(self, x: Any, name: str, kernel: int, stride: int, padding: str = "SAME") -> Any:
        """`name/MaxPool`."""
        return self.apply(f"{name}/MaxPool", lambda x, name: tf.nn.max_pool2d(x, kernel, stride, padding, name=name), x)

    def avg_pool(self, x: Any, name: str, kernel: int | Sequence[int], stride: int, padding: str = "SAME") -> Any:
        """`name/AvgPool`."""
        return self.apply(f"{name}/AvgPool", lambda x, name: tf.nn.avg_pool2d(x, kernel, stride, padding, name=name), x)

    def concat(self, tensors: Sequence[Any], name: str = "concat") -> Any:
        """Along the channels."""
        return self.apply(name, lambda *tensors, name: tf.concat(tensors, 3, name=name), *tensors)

    def mean(self, x: Any, name: str, keepdims: bool = True) -> Any:
        """Over height and width."""
        return self.apply(name, lambda x, name: tf.reduce_mean(x, (1, 2), keepdims, name=name), x)

    def squeeze(self, x: Any, name: str = "SpatialSqueeze") -> Any:
        """Height and width of 1 go."""
        return self.apply(name, lambda x, name: tf.squeeze(x, (1, 2), name=name), x)

    def flatten(self, x: Any, name: str = "Flatten/flatten") -> Any:
        """One row per image; as slim does it: the batch is read from the tensor."""
        with self.scope(name):
            shape = self.apply("Shape", tf.shape, x)
            batch = self.apply(
                "strided_slice", lambda shape, name: tf.strided_slice(shape, [0], [1], [1], shrink_axis_mask=1, name=name), shape
            )
            row = int(np.prod(x.shape[1:]))
            packed = self.apply("Reshape/shape", lambda batch, name: tf.stack([batch, row], name=name), batch)
            return self.apply("Reshape", tf.reshape, x, packed)

    def softmax(self, x: Any, name: str = "Predictions") -> Any:
        """`slim.softmax`: to rows, Softmax, and back to the shape that the logits had."""
        classes = int(x.shape[-1])
        with self.scope(name):
            rows = self.apply("Reshape", lambda x, name: tf.reshape(x, (-1, classes), name=name), x)
            softmax = self.apply("Softmax", tf.nn.softmax, rows)
            return self.apply("Reshape_1", tf.reshape, softmax, self.apply("Shape", tf.shape, x))


def _pair(kernel: int | Sequence[int]) -> tuple[int, int]:
    return (kernel, kernel) if isinstance(kernel, int) else (kernel[0], kernel[1])
