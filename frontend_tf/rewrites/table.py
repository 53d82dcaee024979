"""The table of rewrites of a TensorFlow graph, in the order they are applied."""

from __future__ import annotations

from typing import Final

from .channels_last import channels_last
from .decode_constants import decode_constants
from .erfc_to_erf import erfc_to_erf
from .fake_quant import take_out_fake_quant
from .fold_conditionals import fold_conditionals
from .hide_slopes import hide_slopes
from .inline_functions import inline_functions
from .learning_phase import settle_learning_phase
from .patches_to_space_to_depth import patches_to_space_to_depth
from .read_frozen import read_frozen
from .remove_checks import remove_checks
from .remove_dropout import remove_dropout
from .settle_deconvolutions import settle_deconvolutions
from .settle_moves import settle_moves
from .surgery import Rewrite, Surgery

WHOLE: Final = (
    Rewrite("settle-learning-phase", "placeholders that say 'this is training' become False", settle_learning_phase),
    Rewrite("inline-functions", "bodies take the place of function calls and of If with a constant predicate", inline_functions),
    Rewrite("fold-conditionals", "Switch and Merge with a constant predicate leave the branch that is taken", fold_conditionals),
    Rewrite("read-frozen", "variables that a branch or function reads by their handle are constants there too", read_frozen),
    Rewrite("remove-dropout", "dropout of any age hands on its input", remove_dropout),
    Rewrite("remove-checks", "StopGradient, CheckNumerics, Print and the like hand on their input", remove_checks),
    Rewrite("take-out-fake-quant", "FakeQuant nodes go, their ranges become initial thresholds", take_out_fake_quant),
    Rewrite("decode-constants", "weights stored as float16 or 8 bits become float32", decode_constants),
    Rewrite("channels-last", "operators in NCHW compute in NHWC between transposes", channels_last),
)
"""On the whole graph, before its ends are looked for."""

CUT: Final = (
    Rewrite("settle-deconvolutions", "transposed convolutions take any batch size and any padding", settle_deconvolutions),
)
"""On the part between the ends, with settled input shapes."""

CONVERSION: Final = (
    Rewrite("erfc-to-erf", "Erfc, which ONNX lacks, is written with Erf", erfc_to_erf),
    Rewrite("hide-slopes", "Maximum(a * x, x) with several slopes is hidden from tf2onnx, which expects one", hide_slopes),
    Rewrite("settle-moves", "reversals and symmetric borders are written with constant positions", settle_moves),
    Rewrite("patches-to-space-to-depth", "image patches that tile the image are SpaceToDepth", patches_to_space_to_depth),
)
"""For the conversion alone: the graph that TensorFlow runs for comparison keeps them."""

REWRITES: tuple[Rewrite, ...] = (*WHOLE, *CUT, *CONVERSION)
"""Every rewrite, in order."""


def apply(rewrites: tuple[Rewrite, ...], surgery: Surgery) -> None:
    """Applies rewrites in their order."""
    for rewrite in rewrites:
        rewrite.apply(surgery)
    surgery.close()
