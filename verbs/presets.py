"""`presets`: what is known of well-known networks, one TOML file each, so that nobody types node names.

A network of one's own is one more such file: wherever a preset is named, the path of a `.toml` is understood too.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Final, get_args, get_type_hints

from ..datasets import PREPROCESS, Preprocessing
from ..ir import UsageError
from ..passes import BitWidths

SCHEMA: Final = "tqt_onnx.presets/1"

_LARGEST: Final = 1 << 16
"""Pixels of a side: far more than any network has."""

_FOLDER: Final = Path(__file__).parents[1] / "presets"


@dataclass(frozen=True)
class Preset:
    """One network.

    Attributes:
        name: of the preset.
        summary: which network, of which source.
        inputs: names of its input tensors.
        outputs: names of its output tensors.
        input_shape: H, W, C.
        preprocess: how images become its inputs, a name of `datasets.PREPROCESS`.
        label_offset: output index of class 0 (1 with a background class).
        bits: widths, first and last layer.
        published_top1: percent of ImageNet's validation images that Graffitist reports, by kind of network.
    """

    name: str
    summary: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_shape: tuple[int, ...]
    preprocess: str = "none"
    label_offset: int = 0
    bits: BitWidths = field(default_factory=BitWidths)
    published_top1: Mapping[str, float] = field(default_factory=dict)

    @property
    def preparation(self) -> Preprocessing:
        """`preprocess` for whatever data comes: floating-point arrays are prepared already and stay as they are."""
        return dataclasses.replace(PREPROCESS[self.preprocess], name=self.preprocess, lenient=True)


@dataclass(frozen=True)
class PresetTable:
    """All presets that come with the package."""

    presets: tuple[Preset, ...]

    def to_dict(self) -> dict[str, Any]:
        """The table for JSON."""
        return {"schema": SCHEMA, "presets": [dataclasses.asdict(one) for one in self.presets]}


@cache
def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with the package, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def presets() -> PresetTable:
    """Reads every preset that comes with the package."""
    return PresetTable(tuple(preset(name) for name in preset_names()))


def preset(name: str | os.PathLike[str]) -> Preset:
    """One preset.

    Args:
        name: of one that comes with the package, or the path of a `.toml` file of the same form.

    Raises:
        UsageError: no such preset or file, or a file that is not of this form.
    """
    text = os.fspath(name)
    path = Path(text) if text.endswith(".toml") else _FOLDER / f"{text}.toml"
    if not text.endswith(".toml") and text not in preset_names():
        raise UsageError(f"presets are {', '.join(preset_names())}, or a .toml file of one's own. Received: {text!r}")
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML
        raise UsageError(f"{path}: cannot be read as a preset: {error}") from None
    return _parse(path, entries)


def _parse(path: Path, entries: dict[str, Any]) -> Preset:
    """A preset with every field of its type: a file of the user's is as likely mistyped as any."""
    bits = _typed(path, "bits", entries.pop("bits", {}), BitWidths, "bits.")
    published = entries.pop("published_top1", {})
    if not isinstance(published, dict) or not all(type(value) in (int, float) for value in published.values()):
        raise UsageError(f"{path}: 'published_top1' must be a table of numbers. Received: {published!r}")
    values = _typed(path, "the preset", entries, Preset, "")
    for needed in ("summary", "inputs", "outputs", "input_shape"):
        if needed not in values:
            raise UsageError(f"{path}: {needed!r} is missing")
    if values.get("preprocess", "none") not in PREPROCESS:
        raise UsageError(f"{path}: 'preprocess' must be one of {', '.join(PREPROCESS)}. Received: {values['preprocess']!r}")
    if min(values["input_shape"]) < 1 or max(values["input_shape"]) > _LARGEST:
        raise UsageError(f"{path}: sizes of 1 to {_LARGEST} are expected in 'input_shape'. Received: {list(values['input_shape'])}")
    for name in ("inputs", "outputs"):
        if not all(text.strip() for text in values[name]):
            raise UsageError(f"{path}: names are expected in {name!r}. Received: {list(values[name])}")
    try:
        widths = BitWidths(**bits)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return Preset(path.stem, **values, bits=widths, published_top1=published)


def _typed(path: Path, what: str, entries: Any, kind: type, prefix: str) -> dict[str, Any]:
    """The entries of a TOML table as arguments of a dataclass; lists as tuples."""
    if not isinstance(entries, dict):
        raise UsageError(f"{path}: {what} must be a table. Received: {entries!r}")
    types = get_type_hints(kind)
    known = [item.name for item in dataclasses.fields(kind) if item.name not in ("name", "bits", "published_top1")]
    values = {}
    for name, value in entries.items():
        if name not in known:
            raise UsageError(f"{path}: {what} has the entries {', '.join(known)}. Received: {prefix + name!r}")
        plain = tuple(value) if isinstance(value, list) else value
        if not _fits(plain, types[name]):
            raise UsageError(f"{path}: {prefix + name!r} must be {_written(types[name])}. Received: {value!r}")
        values[name] = plain
    return values


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value from TOML is of an annotated type; True is no number."""
    if isinstance(wanted, UnionType):
        return any(_fits(value, one) for one in get_args(wanted))
    if wanted in (str, int, bool):
        return type(value) is wanted
    if isinstance(value, tuple):
        return bool(value) and all(type(item) is get_args(wanted)[0] for item in value)
    return value in get_args(wanted)  # Literal: the two layer widths


def _written(wanted: Any) -> str:
    plain = {str: "a text", int: "a whole number", bool: "true or false"}
    if isinstance(wanted, UnionType):
        return _written(get_args(wanted)[0])
    if wanted in plain:
        return plain[wanted]
    members = get_args(wanted)
    return f"a list of {'texts' if members[0] is str else 'whole numbers'}" if ... in members else " or ".join(map(str, members))
