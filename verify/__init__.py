"""Proof that every engine computes the same integers: oracle, certificate, onnxruntime, comparison."""

from .certificate import LayerCertificate, certify, observed_bounds
from .compare import Difference, FloatComparison, compare, compare_floats
from .comparison import Runner
from .engines import check_certificates, check_engines, tapped_runner
from .fixed_tensor import FixedPoint
from .oracle import Oracle
from .oracle_ops import OPS, ROUNDINGS, quantize_with, rounding_ops
from .plan import Island
from .result import CheckResult
from .rounding import RULES, RoundingEffect, RoundingMeter, measure_rounding
from .runtime import Session, fused_operators, run_optimized, run_tapped
from .sqnr import NoiseMeter, TensorNoise, Unmatched
from .ties import TensorTies
from .truncate import bisect_optimized

__all__ = [
    "OPS",
    "ROUNDINGS",
    "RULES",
    "CheckResult",
    "Difference",
    "FixedPoint",
    "FloatComparison",
    "Island",
    "LayerCertificate",
    "NoiseMeter",
    "Oracle",
    "RoundingEffect",
    "RoundingMeter",
    "Runner",
    "Session",
    "TensorNoise",
    "TensorTies",
    "Unmatched",
    "bisect_optimized",
    "certify",
    "check_certificates",
    "check_engines",
    "compare",
    "compare_floats",
    "fused_operators",
    "measure_rounding",
    "observed_bounds",
    "quantize_with",
    "rounding_ops",
    "run_optimized",
    "run_tapped",
    "tapped_runner",
]
