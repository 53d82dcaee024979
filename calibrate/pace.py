"""Keeping a time budget while layers are tuned: which of them can be given the full treatment.

What the arithmetic of a layer takes follows from its shapes, up to how fast the machine is, which the layers done so far tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ..kernels.reconstruct import LARGEST, SWEEPS

_OPERATION: Final = 5e-11
"""Seconds of a multiplication with its addition in a matrix product, where nothing is known yet."""

_ELEMENT: Final = 2e-9
"""Seconds to go over a number once: clipping, means, differences."""

_STEP: Final = 3e-5
"""Seconds of one step of rounding or descent, however small the layer."""

_EXPONENTS: Final = 6
"""Exponents that are usually tried."""

_STRENGTHS: Final = 6
"""Strengths of the pull."""

_SWEEPS: Final = 2 + SWEEPS
"""Sweeps of descent at most: one over each of two finalists, the others over the better one."""

_FEW: Final = 2048
"""Rows by which exponents are compared."""

_KNOWN: Final = 0.1
"""Seconds that the guess above weighs against what was measured."""


@dataclass(frozen=True)
class Work:
    """A layer of `groups` times `inputs` by `outputs`, looked at in so many rows."""

    groups: int
    inputs: int
    outputs: int
    rows: int

    def seconds(self, *, full: bool) -> float:
        """On a usual machine: the Hessian, its inverse, the fits, exponents, and in full strengths and sweeps."""
        k, o, p = self.inputs, self.outputs, self.rows
        blocks = -(-k // LARGEST)
        size = -(-k // blocks)
        fits, sweeps = (1 + _STRENGTHS, _SWEEPS) if full and blocks == 1 else (1, 0)  # blocks are only rounded
        products = blocks * (p * size**2 + (2 + fits / 3) * size**3) + fits * k * o * (size + p / 4)
        products += _EXPONENTS * k * o * (size / 2 + min(p, _FEW)) + sweeps * k * o * (2 * k + 2 * p)
        elements = p * k + o * (8 * _EXPONENTS * min(p, _FEW) + 8 * (fits + sweeps) * p)
        return self.groups * (_OPERATION * products + _ELEMENT * elements) + _STEP * k * (_EXPONENTS + sweeps)


class Pace:
    """Decides layer by layer between the full treatment and the quick one.

    Args:
        works: by layer, in full and quick: what is ahead.
        deadline: when all of it should be done, by `clock`.
        clock: seconds.
    """

    def __init__(
        self, works: Mapping[str, tuple[Work, Work]], deadline: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ahead = {name: (full.seconds(full=True), quick.seconds(full=False)) for name, (full, quick) in works.items()}
        self._deadline, self._clock = deadline, clock
        self._taken = self._guessed = _KNOWN

    def allows_full(self, name: str) -> bool:
        """Whether a layer can have the full treatment so that the quick one of all others still fits in.

        The layer is no longer ahead afterwards; asked once for each.
        """
        full, _ = self._ahead.pop(name)
        return self._clock() + full * self._speed <= self._latest

    def late(self) -> bool:
        """Whether only the quick treatment of what is ahead fits in."""
        return self._clock() > self._latest

    def done(self, work: Work, seconds: float, *, full: bool) -> None:
        """Learns from what a layer took."""
        self._taken += seconds
        self._guessed += work.seconds(full=full)

    @property
    def _speed(self) -> float:
        return self._taken / self._guessed

    @property
    def _latest(self) -> float:
        return self._deadline - self._speed * sum(quick for _, quick in self._ahead.values())
