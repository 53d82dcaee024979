"""A quantized model in the form of a DPU, step by step, and its scales moved into range.

Scales only grow where that can help, as a coarser scale saturates nothing: those of outputs where a shift is too small, those of
weights where it is too large. They share groups, so one move may ask for the next; it ends, or the model is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ...ir import Quantizer, UnsupportedError
from ..base import Source
from .draft import Draft
from .layers import raise_leaky, round_once
from .limits import SHIFT_CUT, SHIFT_READ, SHIFT_WRITE, Limit, shift_bias_limit
from .positions import Site, sites_of
from .types import narrow_bias, refuse_wide, to_int8

_MOST_ROUNDS: Final = 100


def drafted(source: Source, bias_bits: int) -> Draft:
    """The model as a DPU takes it, everything that is not exact recorded as a change.

    Args:
        source: the quantized model.
        bias_bits: 32 or 8.

    Raises:
        UnsupportedError: what no change makes fit.
    """
    draft = Draft(*source.lowered())
    round_once(draft)
    raise_leaky(draft)
    refuse_wide(draft)
    to_int8(draft)
    sites = sites_of(draft)
    for _ in range(_MOST_ROUNDS):
        moved = [_into_range(draft, site, bias_bits) for site in sites]
        if not any(moved):
            return draft
    last = draft.changes[-1]
    raise UnsupportedError(f"target dpu: {last.layer!r}: {last.problem}; moving scales into range does not end, they share groups")


def _into_range(draft: Draft, site: Site, bias_bits: int) -> bool:
    """Moves scales until the site's first violation is gone; returns whether there was one."""
    if site.bias is not None:
        _settle_bias(draft, site, draft.quantizers[site.bias], bias_bits)
    if site.kind in {"aligned", "merged"}:
        return _align(draft, site)
    if site.output is None:
        return False
    shifts = site.shifts(draft.quantizers)
    inputs, output = [draft.quantizers[value] for value in site.inputs], draft.quantizers[site.output]
    for limit, moved, direction in _rules(site, shifts, inputs, output):
        excess = limit.excess(shifts[limit.name])
        if excess:
            remedy = draft.move(moved, excess * direction)
            draft.change(limit.name, site.node, limit.violation(shifts[limit.name]), remedy)
            return True
    return False


def _settle_bias(draft: Draft, site: Site, bias: Quantizer, bits: int) -> None:
    """The position of a bias for the scales as they are: that of the sum, or its own 8 bits; neither is finer than the sum."""
    exponent = sum(draft.quantizers[value].decided_exponent for value in site.inputs)
    if bits == 32:
        draft.put(replace(bias, exponent=exponent))
    else:
        narrow_bias(draft, bias, exponent)


def _rules(site: Site, shifts: dict[str, int], inputs: list[Quantizer], output: Quantizer) -> list[tuple[Limit, Quantizer, int]]:
    """Limits of a site, each with the scale that moves, by the excess times -1 or 1."""
    if site.kind == "elementwise":
        finest = min(inputs, key=lambda quantizer: quantizer.decided_exponent)
        read = [(SHIFT_READ, finest, 1)] if SHIFT_READ.name in shifts else []
        return [*read, (SHIFT_WRITE[site.op], output, -1)]
    cut = shifts[SHIFT_CUT.name]
    rules = [(SHIFT_CUT, output if cut < SHIFT_CUT.least else inputs[1], -1 if cut < SHIFT_CUT.least else 1)]
    if site.bias is not None:
        rules.append((shift_bias_limit(cut, leaky=site.leaky), inputs[1], 1))
    return rules


def _align(draft: Draft, site: Site) -> bool:
    values = [*site.inputs, *([] if site.output is None else [site.output])]
    exponents = [draft.quantizers[value].decided_exponent for value in values]
    most = max(exponents)
    if min(exponents) == most:
        return False
    what = "two roundings with nothing in between" if site.kind == "merged" else f"the tensors of a {site.op}"
    positions = ", ".join(str(-exponent) for exponent in exponents)
    moves = [draft.move(draft.quantizers[value], most - old) for value, old in zip(values, exponents, strict=True) if old != most]
    problem = f"{what} have one position on a DPU. Received: {positions}"
    draft.change("position", site.node, problem, " and ".join(moves))
    return True
