"""onnxruntime as an engine: a tapped clone without optimizations, and the untouched model with all of them (X3, X4)."""

from __future__ import annotations

import platform
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import onnxruntime

from ..ir import DataError, ModelError, by_reference, grid_of
from .batches import Feeds, slices

NO_VNNI: Final = "this CPU has no VNNI: session.x64quantprecision=1 is set, lest u8 * s8 products saturate (X4)"


def lacks_vnni(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> bool:
    """Whether u8 * s8 kernels could saturate (X4): an x86 processor without VNNI, or one whose flags cannot be read."""
    if (machine or platform.machine()).lower() not in {"x86_64", "amd64", "i686", "x86"}:
        return False
    if not cpuinfo.is_file():
        return True
    return not {"avx512_vnni", "avx_vnni"} & set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())


VECTOR_EXTENSIONS: Final = ("sse4_1", "avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "asimd", "sve", "sve2")
"""Flags of processors that decide in which registers float32 is computed."""


def vector_extensions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Which of them this processor has; empty where its flags cannot be read."""
    flags = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split()) if cpuinfo.is_file() else set()
    return tuple(name for name in VECTOR_EXTENSIONS if name in flags)


def session_options(*, optimize: bool, optimized_model: Path | None = None) -> onnxruntime.SessionOptions:
    """Deterministic, silent, CPU; all graph optimizations or none."""
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    if optimized_model is not None:
        options.optimized_model_filepath = str(optimized_model)
    if lacks_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


class Session:
    """A loaded model.

    Args:
        model: the model; it is not changed.
        taps: integer tensors to expose as further outputs (on a clone).
        optimize: all graph optimizations, or none.
        count_operators: count the operators of the model as it is run, where it is optimized.

    Attributes:
        operators: operators left after the optimizations; empty where they were not counted.

    Raises:
        ModelError: onnxruntime does not load the model.
    """

    def __init__(
        self, model: onnx_ir.Model, taps: Sequence[str] = (), *, optimize: bool = False, count_operators: bool = False
    ) -> None:
        self.taps = tuple(taps)
        self.operators: Counter[str] = Counter()
        exposed = _tapped(model, taps) if taps else model
        self.outputs = [value.name or "" for value in exposed.graph.outputs]
        options = session_options(optimize=optimize)
        if not optimize:
            proto, self._arrays = by_reference(exposed)
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._arrays.values()]
            options.add_external_initializers(list(self._arrays), values)
            self._session = _load(proto.SerializeToString(), options)
            return
        serialized = onnx_ir.serde.serialize_model(exposed).SerializeToString()  # to the last byte what users load
        if not count_operators:
            self._session = _load(serialized, options)
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "optimized.onnx"
            self._session = _load(serialized, session_options(optimize=optimize, optimized_model=file))
            self.operators.update(node.op_type for node in onnx.load(file).graph.node)

    def run(self, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        """All outputs by name: graph outputs as they are, taps as they are stored.

        Raises:
            DataError: onnxruntime does not take the feeds.
        """
        try:
            results = self._session.run(self.outputs, dict(feeds))
        except Exception as error:
            raise DataError(f"onnxruntime cannot run the model on this input: {_first_line(error)}") from error
        return {name: np.asarray(array) for name, array in zip(self.outputs, results, strict=True)}

    def integers(self, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
        """The tapped tensors by name, computed in batch slices."""
        parts = [self.run(part) for part in slices(feeds)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.taps}


def run_tapped(model: onnx_ir.Model, feeds: Feeds, taps: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Integer tensors of a model, optimizations off.

    Args:
        model: a Q/DQ model; a clone of it is run.
        feeds: graph input name -> float32 array, batch first.
        taps: names of integer tensors (`v__q`).

    Raises:
        ModelError: a tap does not exist or is no integer tensor, or onnxruntime does not load the model.
        DataError: onnxruntime does not take the feeds.
    """
    return Session(model, taps).integers(feeds)


def run_optimized(model: onnx_ir.Model, feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
    """The model's own outputs, untouched, with all optimizations: what users run.

    Raises:
        ModelError: onnxruntime does not load the model.
        DataError: onnxruntime does not take the feeds.
    """
    return Session(model, optimize=True).run(feeds)


def fused_operators(model: onnx_ir.Model) -> Counter[str]:
    """Operators left after all optimizations: QLinearConv, QGemm, ... where a layer runs in integers, Conv where in float.

    Raises:
        ModelError: onnxruntime does not load the model.
    """
    return Session(model, optimize=True, count_operators=True).operators


def _load(serialized: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"onnxruntime {onnxruntime.__version__} does not load the model: {_first_line(error)}") from error


def _tapped(model: onnx_ir.Model, taps: Sequence[str]) -> onnx_ir.Model:
    """A clone whose graph outputs include the taps."""
    clone = model.clone()
    values = {value.name: value for node in clone.graph for value in node.outputs}
    present = {value.name for value in clone.graph.outputs}
    for name in dict.fromkeys(taps):
        if name not in values:
            raise ModelError(f"there is no computed tensor of that name to look at. Received: {name!r}")
        value = values[name]
        if value.type is None:
            value.type = onnx_ir.TensorType(storage(value))
        if name not in present:
            clone.graph.outputs.append(value)
    return clone


def storage(value: onnx_ir.Value) -> onnx_ir.DataType:
    """The integer type of a tensor whose type was not inferred: that of the QuantizeLinear above it."""
    node = value.producer()
    while node is not None and node.op_type != "QuantizeLinear":
        above = node.inputs[0] if node.inputs else None
        node = None if above is None else above.producer()
    if node is None:
        raise ModelError(f"an integer tensor behind QuantizeLinear is expected. Received: {value.name!r}")
    grid = grid_of(node)
    return onnx_ir.DataType[f"{'' if grid.signed else 'U'}INT{grid.bits}"]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
