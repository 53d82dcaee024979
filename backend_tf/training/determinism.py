"""Operators that give the same bits every time, for the time of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


@contextmanager
def deterministic_operators(seed: int) -> Iterator[None]:
    """Seeds TensorFlow and makes its operators deterministic; afterwards they are what they were.

    Two runs with one seed, the same data and the same number of threads then give the same bits. The switch is the process's, and
    TensorFlow has no public way back: where its inner one is missing, operators stay deterministic, and those that have no such
    form raise from then on.

    Args:
        seed: of TensorFlow's random operators; the data has its own.
    """
    from tensorflow.python.framework import config

    before = getattr(config, "is_op_determinism_enabled", lambda: True)()
    tf.random.set_seed(seed)
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not before and hasattr(config, "disable_op_determinism"):
            config.disable_op_determinism()
