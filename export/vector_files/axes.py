"""What the axes of every integer tensor are, as far as the operations say.

A layer names those of what it reads and computes; operations that keep the rank hand the names on, in both directions.
"""

from __future__ import annotations

from typing import Final

from ..integers.network import IntegerNetwork, Operation

Axes = tuple[str, ...]

_SPATIAL: Final[dict[int, Axes]] = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_SAME: Final = frozenset(
    {
        *("Relu", "Clip", "Table", "Identity", "Pad", "Slice", "Concat", "Resize", "Tile", "Add", "Sub", "Mul", "Max", "Min"),
        *("MaxPool", "DepthToSpace", "SpaceToDepth"),
    }
)
"""Operations whose result has the axes of their inputs."""


def axes_of(network: IntegerNetwork) -> dict[str, Axes]:
    """Tensor -> the names of its axes; `batch` and `axis 1`, `axis 2` ... where no operation names them."""
    ranks = {name: len(tensor.shape) for name, tensor in network.tensors.items()}
    for step in network.steps:
        ranks.update({operation.output: len(operation.shape) for operation in step.operations})
    found: dict[str, Axes] = {}
    operations = [operation for step in network.steps for operation in step.operations]
    for operation in operations:
        _learn(found, ranks, _named_by(operation, ranks))
    known = -1
    while known < len(found):
        known = len(found)
        for step in network.steps:
            for operation in step.operations:
                _learn(found, ranks, _handed_on(operation, found, ranks))
            _learn(found, ranks, {step.output: found.get(step.result)})
        for step in reversed(network.steps):
            _learn(found, ranks, {step.result: found.get(step.output)})
            for operation in reversed(step.operations):
                _learn(found, ranks, _handed_back(operation, found, ranks))
    return {
        name: found.get(name) or _plain(ranks[name], first="axis 0" if tensor.kind == "constant" else "batch")
        for name, tensor in network.tensors.items()
    }


def _plain(rank: int, first: str) -> Axes:
    return (first, *(f"axis {index}" for index in range(1, rank)))[:rank]


def _learn(found: dict[str, Axes], ranks: dict[str, int], said: dict[str, Axes | None]) -> None:
    for name, axes in said.items():
        if axes is not None and len(axes) == ranks.get(name):
            found.setdefault(name, axes)


def _named_by(operation: Operation, ranks: dict[str, int]) -> dict[str, Axes | None]:
    """What a layer says of its inputs and its result."""
    if operation.op in {"Conv", "ConvTranspose", "MaxPool", "DepthToSpace", "SpaceToDepth"}:
        spatial = _SPATIAL.get(len(operation.shape) - 2)
        if spatial is None:
            return {}
        image = ("batch", "channel", *spatial)
        said: dict[str, Axes | None] = {operation.inputs[0]: image, operation.output: image}
        channels = ("output channel", "input channel of the group")
        if operation.op == "ConvTranspose":
            channels = ("input channel", "output channel of the group")
        if len(operation.inputs) > 1:
            said[operation.inputs[1]] = (*channels, *(f"kernel {name}" for name in spatial))
        return said | dict.fromkeys(operation.inputs[2:], ("output channel",))
    if operation.op in {"Gemm", "MatMul"} and ranks[operation.inputs[0]] == 2:
        data, weight = ("batch", "feature"), ("input feature", "output feature")
        return {
            operation.inputs[0]: data[::-1] if operation.attributes.get("transA") else data,
            operation.inputs[1]: weight[::-1] if operation.attributes.get("transB") else weight,
            operation.output: data,
            **dict.fromkeys(operation.inputs[2:], ("output feature",)),
        }
    return {}


def _handed_on(operation: Operation, found: dict[str, Axes], ranks: dict[str, int]) -> dict[str, Axes | None]:
    rank = ranks[operation.output]
    for name in operation.inputs:
        axes = found.get(name)
        if axes is not None and len(axes) == rank:
            if operation.op == "Transpose":
                return {operation.output: tuple(axes[place] for place in operation.attributes["perm"])}
            if operation.op in _SAME:
                return {operation.output: axes}
    return {}


def _handed_back(operation: Operation, found: dict[str, Axes], ranks: dict[str, int]) -> dict[str, Axes | None]:
    """To inputs; those of lower rank are aligned to the right, as they are broadcast."""
    axes = found.get(operation.output)
    if axes is None:
        return {}
    if operation.op == "Transpose":
        perm = operation.attributes["perm"]
        return {operation.inputs[0]: tuple(axes[perm.index(place)] for place in range(len(axes)))}
    if operation.op in _SAME:
        return {name: axes[len(axes) - ranks[name] :] for name in operation.inputs if ranks[name] <= len(axes)}
    return {}
