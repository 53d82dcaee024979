"""A target's rounding, beside that of the model: what it changes, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx_ir

    from ..verify import RoundingEffect
    from .sources import Feeder

MODEL_ROUNDING: Final = "half_even"
"""How every model rounds (Q1)."""

_BATCH: Final = 16
"""Examples simulated at once."""


def rounding_effect(model: onnx_ir.Model, feeder: Feeder | None, rounding: str) -> RoundingEffect | None:
    """What a target's rounding changes; None where there is no data, or where the target rounds as the model does.

    Raises:
        UsageError: there is no such rounding.
        DataError: data that does not fit the model.
    """
    if feeder is None or rounding == MODEL_ROUNDING:
        return None
    from ..verify import measure_rounding

    return measure_rounding(model, feeder.feeds(feeder.rows(_BATCH)), rounding)


def rounding_notes(target: str, rounding: str, effect: RoundingEffect | None) -> tuple[str, ...]:
    """One sentence where target and model round differently, none where they do not."""
    if rounding == MODEL_ROUNDING:
        return ()
    from ..verify import RULES

    differs = f"warning: target {target} rounds {RULES[rounding]} ({rounding}); the model rounds {RULES[MODEL_ROUNDING]}"
    if effect is None:
        return (f"{differs}: --data, or `check --rounding {rounding}`, counts what that changes.",)
    return (f"{differs}: {rounding_line(effect)}.",)


def rounding_line(effect: RoundingEffect) -> str:
    """`rounding half_up in place of half_even changes 3 of 50 (6.0%) output integers and ... top-1 answers, on 10 images`."""
    parts = [f"{share(effect.changed, effect.numbers)} output integers"] if effect.numbers else []
    parts += [f"{share(effect.answers_changed, effect.answers)} top-1 answers"] if effect.answers else []
    found = " and ".join(parts) or "nothing that could be counted"
    return f"rounding {effect.rounding} in place of {MODEL_ROUNDING} changes {found}, on {effect.images:,} images"


def share(part: int, whole: int) -> str:
    """`3 of 50 (6.0%)`."""
    return f"{part:,} of {whole:,} ({part / whole:.1%})"
