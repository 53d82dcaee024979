"""What the user asks of a source, apart from the source itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..ir import UsageError


def path_of(source: str | os.PathLike[str]) -> Path:
    """The path as it was given, unless it ends in no name (`.`, `a/..`): readers look beside it, for `name.meta` and the like."""
    path = Path(source)
    return path.resolve() if path.name in ("", "..") else path


@dataclass(frozen=True)
class Request:
    """The arguments of `load`, checked.

    Attributes:
        inputs: names of the inputs, None to find them.
        outputs: names of the outputs, None to find them.
        input_shape: without the batch dimension, None where the source knows it.
        checkpoint: where the variables are, None to find them.
        signature: of a SavedModel, None to choose.
        trust: whether Python code inside a Keras file may run.
    """

    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    input_shape: tuple[int, ...] | None = None
    checkpoint: Path | None = None
    signature: str | None = None
    trust: bool = False

    @classmethod
    def of(
        cls,
        inputs: Sequence[str] | None,
        outputs: Sequence[str] | None,
        input_shape: Sequence[int] | None,
        checkpoint: str | os.PathLike[str] | None,
        signature: str | None,
        trust: bool,
    ) -> Request:
        """Checks what can be checked without the source.

        Raises:
            UsageError: an `input_shape` that is not a shape, or names that are one string.
        """
        if input_shape is not None and not (input_shape and all(isinstance(dim, int) and dim > 0 for dim in input_shape)):
            raise UsageError(
                f"the input shape must be positive numbers without the batch dimension (H,W,C). Received: {input_shape!r}"
            )
        for kind, names in (("inputs", inputs), ("outputs", outputs)):
            if isinstance(names, str):
                raise UsageError(f"{kind}: a list of names is expected. Received: {names!r}")
        return cls(
            inputs=None if inputs is None else tuple(inputs),
            outputs=None if outputs is None else tuple(outputs),
            input_shape=None if input_shape is None else tuple(input_shape),
            checkpoint=None if checkpoint is None else path_of(checkpoint),
            signature=signature,
            trust=trust,
        )

    def refuse(self, *options: str, because: str) -> None:
        """Refuses options that mean nothing for a source.

        Raises:
            UsageError: one of them was given.
        """
        for option in options:
            if getattr(self, option) is not None:
                raise UsageError(f"{because}. Received: {option}={str(getattr(self, option))!r}")
