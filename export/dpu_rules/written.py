"""The model that is written, made once for a source: checking it, measuring its rounding and writing it ask for the same."""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

import onnx_ir

from ...ir import QuantizerGraph
from ..base import Source
from .draft import Draft
from .fix import drafted

_DRAFTS: Final[WeakKeyDictionary[Source, dict[int, Draft]]] = WeakKeyDictionary()
_MODELS: Final[WeakKeyDictionary[Source, dict[int, tuple[QuantizerGraph, onnx_ir.Model]]]] = WeakKeyDictionary()


def draft_of(source: Source, bias_bits: int) -> Draft:
    """As `drafted`; the same object at each call.

    Raises:
        UnsupportedError: what no change makes fit.
    """
    known = _DRAFTS.setdefault(source, {})
    if bias_bits not in known:
        known[bias_bits] = drafted(source, bias_bits)
    return known[bias_bits]


def model_of(source: Source, bias_bits: int) -> tuple[QuantizerGraph, onnx_ir.Model]:
    """The quantizers of the draft, and its Q/DQ model; the same objects at each call, not to be changed.

    Raises:
        UnsupportedError: what no change makes fit, or a scale that left the exact range.
    """
    known = _MODELS.setdefault(source, {})
    if bias_bits not in known:
        draft = draft_of(source, bias_bits)
        graph = draft.graph()
        known[bias_bits] = graph, source.quantized(draft.model, graph)
    return known[bias_bits]
