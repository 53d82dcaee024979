"""Architectures written by Keras 1 and 2, said in the words of Keras 3.

Most of it Keras 3 understands by itself. What is here it refuses, or, for `hard_sigmoid`, would read with other numbers.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import keras

_IDLE: Final[dict[tuple[str, str], tuple[Any, ...]]] = {
    **{
        (f"{layer}{rank}", "groups"): (1, None)
        for layer, ranks in {
            "DepthwiseConv": ("1D", "2D"),
            "SeparableConv": ("1D", "2D"),
            "Conv": ("1DTranspose", "2DTranspose"),
        }.items()
        for rank in ranks
    },
    **{(layer, "time_major"): (False, None) for layer in ("LSTM", "GRU", "SimpleRNN", "RNN")},
    **{(layer, "implementation"): (0, 1, 2, None) for layer in ("LSTM", "GRU", "SimpleRNN")},
    ("BatchNormalization", "mode"): (0,),
    ("BatchNormalization", "renorm"): (False, None),
    ("BatchNormalization", "virtual_batch_size"): (None,),
    ("BatchNormalization", "adjustment"): (None,),
    ("BatchNormalization", "fused"): (True, False, None),
}
"""Arguments that said nothing, with the values for which that is so; Keras 3 does not know the arguments at all."""

_RENAMED: Final = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "Model": "Functional",
}
_SLASH: Final = ">"
"""Stands for `/` in names: TensorFlow allows it in scopes, Keras in names, and nobody uses it."""

_HARD_SIGMOID: Final = "keras_2_hard_sigmoid"


def hard_sigmoid(x: Any) -> Any:
    """`clip(x / 5 + 1/2, 0, 1)`, as Keras 1 and 2 have it. In Keras 3 the slope is 1/6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


CUSTOM_OBJECTS: Final = {_HARD_SIGMOID: hard_sigmoid}
"""What the rewritten architectures refer to."""


def modernized(config: Any, version: str) -> tuple[Any, dict[str, str]]:
    """An architecture in today's words.

    Args:
        config: as parsed from JSON; it is not changed.
        version: of the Keras that wrote it, empty where unknown.

    Returns:
        The architecture, and the layer names that were changed, because Keras 3 allows no `/` in them: new -> as in the file.
    """
    old = not version or version.partition(".")[0] in ("1", "2")
    config = copy.deepcopy(config)
    names = {name.replace("/", _SLASH): name for name in _names(config) if "/" in name}
    return _rewritten(config, {name: new for new, name in names.items()}, old), names


def _names(config: Any) -> list[str]:
    found, pending = [], [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            name = value["config"].get("name") if isinstance(value.get("config"), dict) and "class_name" in value else None
            if isinstance(name, str):
                found.append(name)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return found


def _rewritten(value: Any, names: dict[str, str], old: bool) -> Any:
    if isinstance(value, list):
        return [_rewritten(item, names, old) for item in value]
    if isinstance(value, str):
        return names.get(value, value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"type", "value"} and value["type"] == "ndarray":  # how Keras 2 wrote LeakyReLU's alpha
        return value["value"]
    result = {key: _rewritten(item, names, old) for key, item in value.items()}
    config = result.get("config")
    if not isinstance(config, dict) or not isinstance(result.get("class_name"), str):
        return result
    kind = result["class_name"] = _RENAMED.get(result["class_name"], result["class_name"]) if old else result["class_name"]
    for (layer, argument), idle in _IDLE.items():
        if layer == kind and argument in config and config[argument] in idle:
            del config[argument]
    for argument in ("activation", "recurrent_activation"):
        if old and config.get(argument) == "hard_sigmoid":
            config[argument] = _HARD_SIGMOID
    return result
