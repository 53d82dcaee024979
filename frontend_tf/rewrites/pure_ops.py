"""The operators that may be run while a file is read: arithmetic on what the file itself holds.

Everything else is left alone, whatever its definition says: TensorFlow calls `ReadFile`, `DebugIdentity` (which writes files)
and `PyFuncStateless` not stateful. Operators whose result has a size that only their values tell (`Where`, `Unique`) are
left out too: the size of what is computed is looked at before it is computed.
"""

from __future__ import annotations

from typing import Final

_MOVES: Final = frozenset(
    {"Identity", "Cast", "Bitcast", "Dequantize", "Reshape", "Transpose", "Pack", "Unpack", "Concat", "ConcatV2", "Split", "SplitV"}
) | frozenset(
    {"Fill", "Range", "LinSpace", "Slice", "StridedSlice", "Squeeze", "ExpandDims", "Tile", "BroadcastTo", "Gather", "GatherV2"}
)
_SHAPES: Final = frozenset(
    {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "BroadcastArgs", "ConcatOffset", "Pad", "PadV2", "ReverseV2"}
)
_LOGIC: Final = frozenset(
    {"LogicalAnd", "LogicalOr", "LogicalNot", "Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual", "All", "Any"}
) | frozenset({"Select", "SelectV2", "IsFinite", "IsInf", "IsNan"})
_ARITHMETIC: Final = frozenset(
    {"Add", "AddV2", "AddN", "Sub", "Mul", "Div", "RealDiv", "FloorDiv", "TruncateDiv", "DivNoNan", "Mod", "FloorMod", "Neg", "Abs"}
) | frozenset(
    {"Sign", "Square", "Sqrt", "Rsqrt", "Exp", "Log", "Log1p", "Expm1", "Pow", "Reciprocal", "Inv", "Maximum", "Minimum", "Floor"}
)
_REDUCTIONS: Final = frozenset(
    {"Ceil", "Round", "Rint", "Sum", "Prod", "Mean", "Max", "Min", "ArgMax", "ArgMin", "Cumsum", "Cumprod", "SquaredDifference"}
)

PURE: Final = _MOVES | _SHAPES | _LOGIC | _ARITHMETIC | _REDUCTIONS
"""Besides Const, which is read, not run."""
