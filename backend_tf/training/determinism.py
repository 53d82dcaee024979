"""The one place that changes TensorFlow for the whole process: its seed, and operators that give the same bits every time."""

from __future__ import annotations

import tensorflow as tf


def make_deterministic(seed: int) -> None:
    """Seeds TensorFlow and makes its operators deterministic, for the rest of the process.

    Two runs with one seed, the same data and the same number of threads then give the same bits. TensorFlow offers no way back:
    operators that have no deterministic form raise from then on.

    Args:
        seed: of TensorFlow's random operators; the data has its own.
    """
    tf.random.set_seed(seed)
    tf.config.experimental.enable_op_determinism()
