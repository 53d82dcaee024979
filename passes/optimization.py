"""The recipe that turns an exporter's graph into the one this project lowers, quantizes and trains.

Shapes first, then what is constant, then one layout, then everything per-channel into weights and biases, then relus.
Names, order, shapes and values of the graph's outputs are those of the model given (O3).
"""

from __future__ import annotations

from .affine_into_next import AffineIntoNext
from .affine_to_depthwise import AffineToDepthwise
from .base import Pass
from .bias_from_add import BiasFromAdd
from .ceil_to_pads import CeilToPads
from .collapse_concat import CollapseConcat
from .constant_to_the_right import ConstantToTheRight
from .div_to_mul import DivToMul
from .drop_redundant_relu import DropRedundantRelu
from .expand_to_tile import ExpandToTile
from .explicit_pads import ExplicitPads
from .explicit_transposed_pads import ExplicitTransposedPads
from .fold_affine import FoldAffine
from .fold_batch_norm import FoldBatchNorm
from .fold_constants import FoldConstants
from .fold_pad import FoldPad
from .hoist_affines import HoistAffines
from .hoist_rectifiers import HoistRectifiers
from .infer_shapes import InferShapes
from .lift_constants import LiftConstants
from .max_to_leaky import MaxToLeaky
from .max_to_max_pool import MaxToMaxPool
from .mean_to_global_average_pool import MeanToGlobalAveragePool
from .merge_clips import MergeClips
from .name_moves import NameMoves
from .permute_gemm_rows import PermuteGemmRows
from .plain_gemm import PlainGemm
from .plain_pads import PlainPads
from .plain_resizes import PlainResizes
from .plain_slices import PlainSlices
from .raise_layer_norm import RaiseLayerNorm
from .remove_training_nodes import RemoveTrainingNodes
from .sink_transposes import SinkTransposes
from .splice_identities import SpliceIdentities
from .split_indices import SplitIndices
from .split_to_slices import SplitToSlices
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
    MaxToLeaky,
    PlainGemm,
    ConstantToTheRight,
    SplitToSlices,
    PlainSlices,
    PlainResizes,
    PlainPads,
    SplitIndices,
    ExpandToTile,
    RaiseLayerNorm,
    ExplicitPads,
    CeilToPads,
    ExplicitTransposedPads,
    SinkTransposes,
    NameMoves,
    MeanToGlobalAveragePool,
    MaxToMaxPool,
    HoistAffines,
    AffineIntoNext,
    PermuteGemmRows,
    TransposeToReshape,
    FoldPad,
    BiasFromAdd,
    FoldAffine,
    FoldBatchNorm,
    AffineToDepthwise,
    DivToMul,
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
    SplitToSlices(),
    PlainSlices(),
    InferShapes(),  # computed Reshape targets are constant now, and shapes behind them known
    MaxToLeaky(),  # before its product is taken for a layer
    PlainGemm(),
    ConstantToTheRight(),
    PlainResizes(),
    PlainPads(),
    SplitIndices(),
    ExpandToTile(),
    InferShapes(),  # where they end is known now
    RaiseLayerNorm(),  # before its parts are taken for pools and layers, and transposes tear them
    ExplicitPads(),
    CeilToPads(),
    ExplicitTransposedPads(),
    SinkTransposes(),
    NameMoves(),
    MeanToGlobalAveragePool(),
    MaxToMaxPool(),
    SpliceIdentities(),  # pools of one element
    CollapseConcat(),  # where only transposes stood between
    HoistAffines(),  # to the layer they belong to, before the next one takes them
    BiasFromAdd(),
    FoldAffine(),
    AffineIntoNext(batch_norms=False),  # constants first, so that batch norms folded later give the same bits (B0)
    FoldBatchNorm(),
    AffineIntoNext(),  # while the rows have the order of what stands in front
    PermuteGemmRows(),
    TransposeToReshape(),
    FoldPad(),
    AffineToDepthwise(),
    FoldAffine(),  # terms behind the new layers
    DivToMul(),
    HoistRectifiers(),
    TransposeToReshape(),  # what relus stood between
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
