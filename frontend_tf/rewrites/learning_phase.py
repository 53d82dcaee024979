"""Placeholders that say "this is training" -> False.

    PlaceholderWithDefault / Placeholder, a bool called keras_learning_phase, is_training, ...   ->   Const(False)

What it switches (batch norm between two kinds of statistics, dropout) is decided by `fold-conditionals`. A default of True
does not matter: the graph is converted for inference. A placeholder that the user names as an input stays one.
"""

from __future__ import annotations

import logging
import re
from typing import Final

import numpy as np
import tensorflow as tf

from ..nodes import make_constant
from .surgery import Surgery

logger = logging.getLogger(__name__)

_PLACEHOLDERS: Final = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
_PHASE: Final = re.compile(r"(.*_)?(learning_phase|is_?train(ing)?|phase_?train(ing)?|train(ing)?(_?(phase|flag|mode))?)(_\d+)?")


def settle_learning_phase(surgery: Surgery) -> bool:
    """Makes every bool placeholder of such a name False."""
    changed = False
    for name, node in list(surgery.nodes.items()):
        if node.op not in _PLACEHOLDERS or name in surgery.inputs or node.attr["dtype"].type != tf.bool.as_datatype_enum:
            continue
        if not any(_PHASE.fullmatch(part.lower()) for part in name.split("/")):
            continue
        logger.info("%s: placeholder %r is False: the graph is converted for inference", surgery.where, name)
        surgery.put(make_constant(name, np.asarray(False)))
        changed = True
    return changed
