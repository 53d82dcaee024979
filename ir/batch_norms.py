"""Where a layer's weight came from, when a batch norm was folded into it: what retraining takes apart again (B2).

In memory only: a record is kept in the `meta` of the layer's node, which clones share and files do not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir

_KEY: Final = "tqt_onnx.batch_norm"

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class FoldedBatchNorm:
    """A layer and the one batch norm behind it, as they were before folding; the arrays are the model's own, not copies.

    Attributes:
        weight: of the layer, in the layout of ONNX.
        bias: of the layer, [channels], or None.
        gamma: [channels].
        beta: [channels].
        mean: moving mean, [channels].
        variance: moving variance, [channels].
        epsilon: what is added to the variance.
        unbiased: whether the source keeps the moving variance with Bessel's correction, as TensorFlow's FusedBatchNorm does.
        names: what `bias`, `gamma`, `beta`, `mean` and `variance` were called.
    """

    weight: Array
    bias: npt.NDArray[np.float64] | None
    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float
    unbiased: bool
    names: Mapping[str, str]


def remember_batch_norm(node: onnx_ir.Node, folded: FoldedBatchNorm | str) -> None:
    """Notes at a layer's node what was folded into it, or the reason why that cannot be taken apart again."""
    node.meta[_KEY] = folded


def batch_norm_of(node: onnx_ir.Node) -> FoldedBatchNorm | str | None:
    """What `remember_batch_norm` noted; None where no batch norm was folded into the layer."""
    found = node.meta.get(_KEY)
    return found if isinstance(found, (FoldedBatchNorm, str)) else None


def move_batch_norm(node: onnx_ir.Node, move: Callable[[Array], Array]) -> None:
    """Moves the elements of the recorded weight as those of the layer's own weight were moved."""
    found = batch_norm_of(node)
    if isinstance(found, FoldedBatchNorm):
        node.meta[_KEY] = replace(found, weight=move(found.weight))


def forget_batch_norms(model: onnx_ir.Model) -> None:
    """Drops all records, and with them the arrays they hold."""
    for node in model.graph:
        node.meta.pop(_KEY, None)
