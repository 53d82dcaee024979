"""How sure an accuracy, or the difference of two accuracies on the same images, is.

For a difference only images on which exactly one of the two models is right tell anything: two counts are all that is needed.
"""

from __future__ import annotations

import math
from typing import Final

Z95: Final = 1.959963984540054
"""97.5% point of the normal distribution: two-sided 95%."""


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """95% score interval of a share (E. B. Wilson, JASA 22:209, 1927); right for small counts and at 0 and 1.

    Args:
        right: images counted, 0 to `count`.
        count: all images, at least 1.
    """
    share, z2 = right / count, Z95 * Z95
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return (0.0 if right == 0 else centre - half), (1.0 if right == count else centre + half)


def paired_interval(only_model: int, only_reference: int, count: int) -> tuple[float, float]:
    """95% score interval of the difference of two accuracies measured on the same images.

    Every difference that the score test does not reject, its variance taken under that difference (T. Tango, Statistics in
    Medicine 17:891, 1998). It keeps its coverage where few or no images are discordant; the plain normal interval has
    width zero there, and the one with half a count added to each cell covers 91% at 0 against 2 in 100 (120 images).

    Args:
        only_model: images only the model gets right.
        only_reference: images only the reference gets right.
        count: all images, at least 1.
    """
    return -_upper_limit(only_reference, only_model, count), _upper_limit(only_model, only_reference, count)


def constrained_share(only_model: int, only_reference: int, count: int, difference: float) -> float:
    """Most likely share of images only the reference gets right, were `difference` (0 to 1) the true one (Tango 1998)."""
    square = 2.0 * count
    linear = (square - only_model + only_reference) * difference - only_model - only_reference
    absolute = -only_reference * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 4 * square * absolute))
    if linear > 0:  # the form without cancellation
        return -2 * absolute / (linear + root)
    return (root - linear) / (2 * square)


def _upper_limit(only_model: int, only_reference: int, count: int) -> float:
    """Largest difference that is not rejected, by bisection: the score falls monotonically from the observed difference on."""
    kept, rejected = (only_model - only_reference) / count, 1.0
    while True:
        middle = (kept + rejected) / 2
        if not kept < middle < rejected:
            return rejected
        share = constrained_share(only_model, only_reference, count, middle)
        variance = count * (2 * share + middle * (1 - middle))
        if (only_model - only_reference - count * middle) ** 2 <= Z95 * Z95 * variance:
            kept = middle
        else:
            rejected = middle


def exact_mcnemar(only_model: int, only_reference: int) -> float:
    """Two-sided p-value of equal accuracy given the discordant images: the sign test, exact for small counts.

    Q. McNemar, Psychometrika 12:153, 1947, with the binomial in place of its approximation.
    """
    discordant, fewer = only_model + only_reference, min(only_model, only_reference)
    if 2 * fewer >= discordant:
        return 1.0
    logarithms = [
        math.lgamma(discordant + 1) - math.lgamma(k + 1) - math.lgamma(discordant - k + 1) - discordant * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(value) for value in logarithms))
