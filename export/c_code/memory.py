"""Where the arrays between layers lie: in one piece of memory, in which what is no longer read makes room.

There is one arena for each width of integers, since C lets no memory that was declared as one type be used as another. In it the
largest arrays are placed first, each at the lowest position that is free as long as it lives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .kernels import Program
from .types import width


@dataclass(frozen=True, slots=True)
class Place:
    """An array in an arena.

    Attributes:
        bits: which arena.
        offset: in elements of that arena.
        elements: how many.
        first: the function that writes it.
        last: the last one that reads it.
    """

    bits: int
    offset: int
    elements: int
    first: int
    last: int

    def meets(self, other: Place) -> bool:
        """Whether both live at once, in one arena."""
        return self.bits == other.bits and self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Memory:
    """All arrays that are neither constants nor arguments.

    Attributes:
        places: by the name of the value.
        arenas: bits -> elements.
    """

    places: Mapping[str, Place]
    arenas: Mapping[int, int]

    @property
    def bytes(self) -> int:
        """Of all arenas."""
        return sum(bits // 8 * elements for bits, elements in self.arenas.items())

    @property
    def bytes_without_reuse(self) -> int:
        """What arrays of their own would take."""
        return sum(place.bits // 8 * place.elements for place in self.places.values())


def plan_memory(program: Program) -> Memory:
    """Places every array that a function writes for another one; what leaves the network is written to its argument."""
    ends = {program.array(name) for name in program.ends}
    last = {name: index for index, kernel in enumerate(program.kernels) for name in kernel.reads}
    wanted = []
    for index, kernel in enumerate(program.kernels):
        for name in kernel.writes:
            if name not in ends:
                value = program.values[name]
                wanted.append((name, Place(width(value.ctype), 0, math.prod(value.shape), index, last[name])))
    placed: dict[str, Place] = {}
    for name, place in sorted(wanted, key=lambda item: (-item[1].elements, item[1].first)):
        placed[name] = _lowest(place, [other for other in placed.values() if other.meets(place)])
    arenas: dict[int, int] = {}
    for place in placed.values():
        arenas[place.bits] = max(arenas.get(place.bits, 0), place.offset + place.elements)
    return Memory({name: placed[name] for name, _ in wanted}, dict(sorted(arenas.items())))


def _lowest(place: Place, others: list[Place]) -> Place:
    """The array at the lowest position that none of the others covers."""
    offset = 0
    for other in sorted(others, key=lambda item: item.offset):
        if offset + place.elements <= other.offset:
            break
        offset = max(offset, other.offset + other.elements)
    return Place(place.bits, offset, place.elements, place.first, place.last)
