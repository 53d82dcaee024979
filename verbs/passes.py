"""`passes`: every pass with its options, and the recipes that use it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..passes import ALIASES, PASSES, RECIPES, describe, options_of


@dataclass(frozen=True)
class PassRow:
    """One pass of the table.

    Attributes:
        name: what the user types.
        options: `name=default` of each option, `name=?` where one must be given.
        recipes: names of the recipes that hold it.
        summary: what it does, in a line.
    """

    name: str
    options: tuple[str, ...]
    recipes: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class PassTable:
    """Everything that `--passes` understands.

    Attributes:
        passes: one row for each pass.
        recipes: name -> the items it stands for.
        aliases: Graffitist's names -> ours.
        rewrites: (name, what it does) of what happens to every TensorFlow graph before it is ONNX; not for lists.
            Empty unless asked for.
    """

    passes: tuple[PassRow, ...]
    recipes: dict[str, tuple[str, ...]]
    aliases: dict[str, str]
    rewrites: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """The table for JSON."""
        return dataclasses.asdict(self)


def passes(*, tensorflow: bool = False) -> PassTable:
    """Reads the tables; nothing is typed twice.

    Args:
        tensorflow: also list the rewrites of TensorFlow graphs, which loads TensorFlow.
    """
    rewrites: tuple[tuple[str, str], ...] = ()
    if tensorflow:
        from ..frontend_tf.rewrites.table import REWRITES

        rewrites = tuple((row.name, row.summary) for row in REWRITES)
    rows = [
        PassRow(
            name=name,
            options=tuple(
                f"{option}={'?' if default is dataclasses.MISSING else _shown(default)}"
                for option, (_, default) in options_of(step).items()
            ),
            recipes=tuple(recipe for recipe, steps in RECIPES.items() if any(isinstance(one, step) for one in steps)),
            summary=(step.__doc__ or "").strip().partition("\n")[0],
        )
        for name, step in PASSES.items()
    ]
    recipes = {name: tuple(describe(steps)) for name, steps in RECIPES.items()}
    return PassTable(tuple(rows), recipes, dict(ALIASES), rewrites)


def _shown(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
