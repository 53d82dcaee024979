"""Placeholders that say "this is training" -> False.

    PlaceholderWithDefault / Placeholder, a bool called keras_learning_phase, is_training, ...   ->   Const(False)
    Placeholder, a bool that chooses between a batch norm that trains and one that does not      ->   Const(False)

What it switches (batch norm between two kinds of statistics, dropout) is decided by `fold-conditionals`. A default of True
does not matter: the graph is converted for inference. The argument `training` of a function or signature is such a placeholder,
too. One that the user names as an input stays one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from typing import Final

import numpy as np
import tensorflow as tf

from ..frozen import GraphDef
from ..nodes import PLACEHOLDERS, Nodes, data_inputs, index_of, make_constant, node_of
from .surgery import Surgery

logger = logging.getLogger(__name__)

_BOOL: Final = tf.bool.as_datatype_enum
_PHASE: Final = re.compile(r"(.*_)?(learning_phase|is_?train(ing)?|phase_?train(ing)?|train(ing)?(_?(phase|flag|mode))?)(_\d+)?")


def learning_phases(graph_def: GraphDef) -> set[str]:
    """Names of the placeholders that `settle_learning_phase` takes for such."""
    return _phases({node.name: node for node in graph_def.node})


def settle_learning_phase(surgery: Surgery) -> bool:
    """Makes every bool placeholder of such a name False."""
    changed = False
    for name in sorted(_phases(surgery.nodes) - set(surgery.inputs)):
        logger.info("%s: placeholder %r is False: the graph is converted for inference", surgery.where, name)
        surgery.put(make_constant(name, np.asarray(False)))
        changed = True
    return changed


def _phases(nodes: Nodes) -> set[str]:
    flags = {name for name, node in nodes.items() if node.op in PLACEHOLDERS and node.attr["dtype"].type == _BOOL}
    named = {name for name in flags if any(_PHASE.fullmatch(part.lower()) for part in name.split("/"))}
    return named | _start_training(nodes, flags)


def _start_training(nodes: Nodes, flags: Collection[str]) -> set[str]:
    """Flags that, where they are true, send data through a batch norm in training mode (`tf.layers.batch_normalization`)."""
    found = set()
    for node in nodes.values():
        reads = data_inputs(node)
        if not node.op.startswith("FusedBatchNorm") or not node.attr["is_training"].b or not reads or index_of(reads[0]) != 1:
            continue
        switch = nodes.get(node_of(reads[0]))
        behind = data_inputs(switch)[1:2] if switch is not None and switch.op in ("Switch", "RefSwitch") else []
        passed: set[str] = set()  # a SavedModel is looked at before it is known to be a graph without circles
        while behind and (above := nodes.get(node_of(behind[0]))) is not None and above.op == "Identity":
            if above.name in passed:
                break
            passed.add(above.name)
            behind = data_inputs(above)[:1]
        found |= {node_of(flag) for flag in behind} & set(flags)
    return found
