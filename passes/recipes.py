"""Every pass there is, by name, and the named lists of them."""

from __future__ import annotations

from typing import Final

import onnx_ir

from .average_pool_to_depthwise import AveragePoolToDepthwise
from .base import Callback, Pass, run_passes
from .bilinear_to_depthwise import BilinearToDepthwise
from .fence_resizes import FenceResizes
from .fix_input_shape import FixInputShape
from .insert_rescale import InsertRescale
from .leaky_to_max import LeakyToMax
from .lower import OwnConstants, OwnInputs, SplitBias, lowering
from .optimization import OPTIMIZE, OPTIMIZE_KEEP_BATCH_NORM, OPTIMIZE_PASSES
from .strip_unused import StripUnused

_ALL: Final[tuple[type[Pass], ...]] = (
    FixInputShape,
    *OPTIMIZE_PASSES,
    StripUnused,
    AveragePoolToDepthwise,
    BilinearToDepthwise,
    FenceResizes,
    OwnInputs,
    OwnConstants,
    LeakyToMax,
    SplitBias,
    InsertRescale,
)

PASSES: Final[dict[str, type[Pass]]] = {step.name: step for step in _ALL}
"""Name -> pass. Fields of the dataclass are its options."""

RECIPES: Final[dict[str, tuple[Pass, ...]]] = {
    "optimize": OPTIMIZE,
    "optimize-keep-batch-norm": OPTIMIZE_KEEP_BATCH_NORM,
    "quantize": lowering("layer16"),
    "quantize-layer32": lowering("layer32"),
}
"""Named lists. `convert` runs the first or the second, `quantize` the first and then, by its contract, one of the others."""


def optimize(model: onnx_ir.Model, *, keep_batch_norm: bool = False, callback: Callback | None = None) -> bool:
    """Optimizes a float model in place: constants, layout, batch norms and biases folded; what it computes is unchanged.

    Args:
        model: opset 21.
        keep_batch_norm: leave batch norms unfolded, for retraining (B0).
        callback: called behind every pass.

    Returns:
        Whether anything changed.

    Raises:
        TqtOnnxError: as the passes.
    """
    return run_passes(model, OPTIMIZE_KEEP_BATCH_NORM if keep_batch_norm else OPTIMIZE, callback)
