"""Where a training graph's network ends and its losses begin.

    images -> Conv2D -> ... -> Output -> hinge loss, accuracy, gradients
                                         ^ labels

A network that is trained may have no end of its own: everything it computes is read, by nodes that read the labels too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from ..nodes import Nodes, ancestors, data_inputs, node_of, readers_of
from .ends import QUEUES, behind

_LAYERS: Final = frozenset({"Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul"})
_CARRIERS: Final = frozenset({"Reshape", "Identity", "Cast", "StopGradient", "ArgMax", "Squeeze"})
"""What a loss or a metric does to its operand before it compares it with the labels."""


def in_front_of_losses(nodes: Nodes, starts: Collection[str], is_training: Callable[[str], bool]) -> list[str]:
    """Nodes behind the last layers that depend on the images only and are read by one that depends on the labels, too.

    Labels are what is fed and reaches a loss without passing a layer; where nothing is of this kind, the result is empty.

    Args:
        nodes: the graph.
        starts: nodes at which it is fed.
        is_training: whether a node is a gradient or the like, by its name.
    """
    own = {name: node for name, node in nodes.items() if not is_training(name)}
    readers = readers_of(own)
    fed = {tensor: behind(readers, _readers_of_tensor(own, readers, tensor)) for tensor in _tensors(own, starts)}
    layers = [name for name, node in own.items() if node.op in _LAYERS]
    above = ancestors(nodes, [read for name in layers for read in nodes[name].input if not read.startswith("^")], stop=set())
    images = [tensor for tensor in fed if any(name in fed[tensor] for name in layers)]
    with_labels = set().union(*(fed[tensor] for tensor in fed if tensor not in images))
    computed = behind(readers, layers) - with_labels
    ends: dict[str, None] = {}
    for name, node in own.items():
        if name in computed and not node.op.startswith("Random") and not with_labels.isdisjoint(readers.get(name, ())):
            ends[_in_front(nodes, name, readers)] = None
    return [name for name in ends if name not in above]


def _tensors(nodes: Nodes, starts: Collection[str]) -> list[str]:
    """The tensors that are fed: a queue delivers images and labels from one node."""
    read = {read.removesuffix(":0") for node in nodes.values() for read in data_inputs(node) if node_of(read) in starts}
    return sorted(tensor for tensor in read if ":" not in tensor or nodes[node_of(tensor)].op in QUEUES)


def _readers_of_tensor(nodes: Nodes, readers: dict[str, list[str]], tensor: str) -> list[str]:
    found = readers.get(node_of(tensor), ())
    return [name for name in found if tensor in {read.removesuffix(":0") for read in data_inputs(nodes[name])}]


def _in_front(nodes: Nodes, name: str, readers: dict[str, list[str]]) -> str:
    """Back over what belongs to the loss or the metric: the operand of its Reshape or ArgMax."""
    while nodes[name].op in ("ArgMax", "Cast") or (nodes[name].op in _CARRIERS and _is_scoped_with_reader(name, readers)):
        name = node_of(data_inputs(nodes[name])[0])
    return name


def _is_scoped_with_reader(name: str, readers: dict[str, list[str]]) -> bool:
    scope = name.rpartition("/")[0]
    return bool(scope) and all(f"{reader}/".startswith(f"{scope}/") for reader in readers.get(name, ()))
