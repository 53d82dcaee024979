"""The recipe that turns an exporter's graph into the one this project lowers, quantizes and trains.

Shapes first, then what is constant, then one layout, then everything per-channel into weights and biases, then relus.
Names, order, shapes and values of the graph's outputs are those of the model given (O3).
"""

from __future__ import annotations

from .affine_into_next import AffineIntoNext
from .affine_to_depthwise import AffineToDepthwise
from .base import Pass
from .bias_from_add import BiasFromAdd
from .collapse_concat import CollapseConcat
from .drop_redundant_relu import DropRedundantRelu
from .explicit_pads import ExplicitPads
from .fold_affine import FoldAffine
from .fold_batch_norm import FoldBatchNorm
from .fold_constants import FoldConstants
from .fold_pad import FoldPad
from .hoist_rectifiers import HoistRectifiers
from .infer_shapes import InferShapes
from .lift_constants import LiftConstants
from .max_to_max_pool import MaxToMaxPool
from .mean_to_global_average_pool import MeanToGlobalAveragePool
from .merge_clips import MergeClips
from .permute_gemm_rows import PermuteGemmRows
from .plain_gemm import PlainGemm
from .remove_training_nodes import RemoveTrainingNodes
from .sink_transposes import SinkTransposes
from .splice_identities import SpliceIdentities
from .sum_to_adds import SumToAdds
from .transpose_to_reshape import TransposeToReshape

OPTIMIZE_PASSES: tuple[type[Pass], ...] = (
    LiftConstants,
    RemoveTrainingNodes,
    SpliceIdentities,
    InferShapes,
    FoldConstants,
    CollapseConcat,
    SumToAdds,
    PlainGemm,
    ExplicitPads,
    SinkTransposes,
    MeanToGlobalAveragePool,
    MaxToMaxPool,
    AffineIntoNext,
    PermuteGemmRows,
    TransposeToReshape,
    FoldPad,
    BiasFromAdd,
    FoldAffine,
    FoldBatchNorm,
    AffineToDepthwise,
    HoistRectifiers,
    MergeClips,
    DropRedundantRelu,
)
"""Every pass of this half of the room, once: rows for the room's table."""

OPTIMIZE: tuple[Pass, ...] = (
    LiftConstants(),
    InferShapes(),
    RemoveTrainingNodes(),
    SpliceIdentities(),
    FoldConstants(),
    SumToAdds(),
    InferShapes(),  # computed Reshape targets are constant now, and shapes behind them known
    PlainGemm(),
    ExplicitPads(),
    SinkTransposes(),
    MeanToGlobalAveragePool(),
    MaxToMaxPool(),
    SpliceIdentities(),  # pools of one element
    CollapseConcat(),  # where only transposes stood between
    AffineIntoNext(),  # while the rows have the order of what stands in front
    PermuteGemmRows(),
    TransposeToReshape(),
    FoldPad(),
    BiasFromAdd(),
    FoldAffine(),
    FoldBatchNorm(),
    FoldAffine(),  # what stood behind a batch norm
    AffineToDepthwise(),
    FoldAffine(),  # terms behind the new layers
    HoistRectifiers(),
    MergeClips(),
    DropRedundantRelu(),
    InferShapes(),
)
"""The recipe, in order."""

OPTIMIZE_KEEP_BATCH_NORM: tuple[Pass, ...] = tuple(
    type(step)(batch_norms=False) if isinstance(step, (AffineToDepthwise, AffineIntoNext)) else step
    for step in OPTIMIZE
    if not isinstance(step, FoldBatchNorm)
)
"""The recipe for retraining: inference batch norms stay as they are (B0)."""
