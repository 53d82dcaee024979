"""Names of a model as C identifiers and as text in comments: whatever a name holds, it stays a name.

Every identifier made here ends in a suffix that no keyword, macro of <stdint.h>, built-in function of a compiler or local
variable of the generated code ends in: `_q`, `_wide`, `_table`, `_index`, and `_f` of the function of a layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_LONGEST: Final = 48
"""C99 tells internal identifiers apart by their first 63 characters."""

_LONGEST_COMMENT: Final = 160

_OUTSIDE_COMMENTS: Final = re.compile(r"[^A-Za-z0-9 _.:/()+,=\[\]@#%&;|~<>'\"-]")
"""Among what is left out are `*`, `\\` and `?`: a comment can neither end nor begin, nor can a line be continued."""


def identifier(name: str, fallback: str = "v") -> str:
    """ASCII letters, digits and single underscores; no underscore at either end, no digit in front."""
    plain = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", name)).strip("_")[:_LONGEST].rstrip("_")
    if not plain:
        return fallback
    return f"{fallback}_{plain}" if plain[0].isdigit() else plain


def comment(text: str | None) -> str:
    """A model's text, harmless inside `/* */`; what is not plain ASCII becomes `_`."""
    plain = _OUTSIDE_COMMENTS.sub("_", text or "")
    return plain if len(plain) <= _LONGEST_COMMENT else plain[:_LONGEST_COMMENT] + "..."


@dataclass
class Names:
    """Identifiers of one file, each given once."""

    taken: set[str] = field(default_factory=set)

    def make(self, name: str, suffix: str, prefix: str = "") -> str:
        """An identifier that no other name has, not even in capitals: macros are made from it."""
        stem = f"{prefix}{identifier(name)}"
        made, count = f"{stem}_{suffix}", 1
        while made.upper() in self.taken:
            count += 1
            made = f"{stem}_{count}_{suffix}"
        self.taken.add(made.upper())
        return made
