"""Lists of passes as text, the way users type them.

    "splice-identities, fix-input-shape(shape=224,224,3), fold-batch-norm"
    "optimize strip-unused"

Items are separated by commas or blanks; an item is a pass with options, or a recipe by name. Underscores are hyphens, and
Graffitist's names of its transforms mean what they mean there (`ALIASES`). Everything comes from the tables: the fields of
a pass's dataclass are its options, their types say how a value is read. Nothing is evaluated.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_type_hints

from ..ir import UsageError
from .base import Pass
from .recipes import PASSES, RECIPES

ALIASES: Final[Mapping[str, str]] = {
    "fold-batch-norms": "optimize",
    "fold-batch-norms(is_training=True)": "optimize-keep-batch-norm",
    "fold-batch-norms(is_training=False)": "optimize",
    "strip-unused-nodes": "strip-unused",
    "preprocess-layers": "splice-identities, collapse-concat, mean-to-global-average-pool",
}
"""Graffitist's name of a transform -> ours. Folding asks for one layout first, hence the whole recipe. What else its
`preprocess_layers` does (average pools to convolutions, rescales) belongs to the recipe `quantize` here."""

_ITEM: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(\(([^()]*)\))?\s*(,|$|(?=\s)|(?<=\s))")
_OPTION: Final = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*")
_YES_NO: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_passes(text: str) -> tuple[Pass, ...]:
    """The passes that a list names, recipes unfolded.

    Raises:
        UsageError: an unknown pass (with close names), an unknown option (with the pass's own), a value that is not of the
            option's type, or text that is no list.
    """
    found: list[Pass] = []
    position = 0
    stripped = text.strip().rstrip(",")
    while position < len(stripped):
        match = _ITEM.match(stripped, position)
        if match is None:
            raise UsageError(f"passes are expected as name or name(option=value,...). Received: {stripped[position:]!r}")
        found.extend(_item(match[1], match[3]))
        position = match.end()
    if not found:
        raise UsageError(f"at least one pass is expected. Received: {text!r}")
    return tuple(found)


def options_of(step: type[Pass]) -> dict[str, tuple[Any, Any]]:
    """Name -> (type, default) of a pass's options; `dataclasses.MISSING` where one must be given."""
    types = get_type_hints(step)
    return {field.name: (types[field.name], field.default) for field in dataclasses.fields(step)}  # type: ignore[arg-type]


def _item(written: str, arguments: str | None) -> tuple[Pass, ...]:
    name = written.replace("_", "-").lower()
    spelled = f"{name}({''.join(arguments.split())})" if arguments and arguments.strip() else name
    if spelled in ALIASES:
        return parse_passes(ALIASES[spelled])
    if name in RECIPES:
        if (arguments or "").strip():
            raise UsageError(f"{name}: a recipe has no options; its passes have. Received: {arguments!r}")
        return RECIPES[name]
    if name not in PASSES:
        known = [*PASSES, *RECIPES]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"close names: {', '.join(close)}; " if close else ""
        raise UsageError(f"no pass of that name; {hint}`tqt-onnx passes` lists them all. Received: {written!r}")
    step = PASSES[name]
    return (step(**_values(step, arguments or "")),)


def _values(step: type[Pass], text: str) -> dict[str, Any]:
    options = options_of(step)
    starts = list(_OPTION.finditer(text))
    if text.strip() and (not starts or text[: starts[0].start()].strip()):
        raise UsageError(f"{step.name}: option=value is expected. Received: {text!r}")
    values: dict[str, Any] = {}
    ends = [*(match.start() for match in starts[1:]), len(text)]
    for match, end in zip(starts, ends, strict=False):
        name = match[1]
        written = text[match.end() : end].strip().rstrip(",").strip()
        if name not in options or name in values:
            said = "is given twice" if name in values else f"is no option; it has {', '.join(options) or 'none'}"
            raise UsageError(f"{step.name}: {name!r} {said}. Received: {text!r}")
        values[name] = _read(step.name, name, options[name][0], written)
    missing = [name for name, (_, default) in options.items() if default is dataclasses.MISSING and name not in values]
    if missing:
        raise UsageError(f"{step.name}: {', '.join(missing)} must be given. Received: {text!r}")
    return values


def _read(step: str, option: str, kind: Any, written: str) -> Any:
    """One value, by the type of its field."""
    try:
        if kind is bool:
            return _YES_NO[written.lower()]
        if kind in (int, float):
            return kind(written)
        if kind == tuple[int, ...]:
            return tuple(int(part) for part in re.split(r"[,x]", written.strip("[]")) if part.strip())
        if kind is str:
            return written.strip("'\"")
    except (KeyError, ValueError):
        pass
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(kind, "whole numbers (224,224,3)")
    raise UsageError(f"{step}: {option} must be {expected}. Received: {written!r}")


def describe(steps: Sequence[Pass]) -> list[str]:
    """The items that would give these passes, options that have their default left out."""
    found = []
    for step in steps:
        given = {
            name: getattr(step, name) for name, (_, default) in options_of(type(step)).items() if getattr(step, name) != default
        }
        written = ",".join(f"{name}={_write(value)}" for name, value in given.items())
        found.append(f"{step.name}({written})" if written else step.name)
    return found


def _write(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
