"""How much is made out of a few numbers in a file before it is refused."""

from typing import Final

MOST_ELEMENTS: Final = 1 << 24
"""Elements of an array that follows from sizes alone: positions along an axis, numbered images, maps over an image.

Larger than any layer's, and small enough to be made: 128 MB of int64.
"""
