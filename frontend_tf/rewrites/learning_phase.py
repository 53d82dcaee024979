"""Placeholders that say "this is training" -> False.

    PlaceholderWithDefault / Placeholder, a bool called keras_learning_phase, is_training, ...   ->   Const(False)

What it switches (batch norm between two kinds of statistics, dropout) is decided by `fold-conditionals`. A default of True
does not matter: the graph is converted for inference. The argument `training` of a function or signature is such a placeholder,
too. One that the user names as an input stays one.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import numpy as np
import tensorflow as tf

from ..frozen import GraphDef
from ..nodes import PLACEHOLDERS, make_constant
from .surgery import Surgery

logger = logging.getLogger(__name__)

_PHASE: Final = re.compile(r"(.*_)?(learning_phase|is_?train(ing)?|phase_?train(ing)?|train(ing)?(_?(phase|flag|mode))?)(_\d+)?")


def learning_phases(graph_def: GraphDef) -> set[str]:
    """Names of the placeholders that `settle_learning_phase` takes for such."""
    return {node.name for node in graph_def.node if _is_phase(node)}


def settle_learning_phase(surgery: Surgery) -> bool:
    """Makes every bool placeholder of such a name False."""
    changed = False
    for name, node in list(surgery.nodes.items()):
        if name in surgery.inputs or not _is_phase(node):
            continue
        logger.info("%s: placeholder %r is False: the graph is converted for inference", surgery.where, name)
        surgery.put(make_constant(name, np.asarray(False)))
        changed = True
    return changed


def _is_phase(node: Any) -> bool:
    if node.op not in PLACEHOLDERS or node.attr["dtype"].type != tf.bool.as_datatype_enum:
        return False
    return any(_PHASE.fullmatch(part.lower()) for part in node.name.split("/"))
