"""What an exporter is, and what it is given.

An exporter is a frozen dataclass whose fields are its options. `check` refuses what the target cannot hold, naming layer, limit
and value, before anything is written; `write` fills a folder that takes its name only when everything is in it. Both are given
one `Source`; what other rooms know of the model (bounds, the oracle's integers, TensorFlow) comes as values and functions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import QuantizerGraph
from .integers.network import IntegerNetwork

Feeds = Mapping[str, npt.NDArray[Any]]
"""Graph input name -> float32 array, batch first."""


@dataclass(frozen=True, eq=False)
class Source:
    """A quantized model, and what an exporter may ask of it.

    Attributes:
        name: of the model file, without suffixes: what files are called after.
        model: the Q/DQ model. It is never changed: exporters work on a `clone()`.
        graph: its quantizers.
        network: the same in integers.
        oracle: feeds -> integers of every tensor of `network`, by name, int64, batch first; constants are left out.
        examples: gives the user's examples anew at each call, as feeds of a few examples each; None where no data was given.
        count: how many examples those are; None where no data was given.
        lowered: the float graph that the model stands for, constants on their grids, to be changed freely; with its quantizers.
        quantized: such a graph and its decided quantizers -> their Q/DQ model; refuses what `insert_qdq` refuses.
        run: a Q/DQ model, feeds, names of its integer tensors or outputs -> their real numbers, float64, computed by the oracle.
        write_saved_model: writes the regenerated TensorFlow graph with fixed quantizers as a SavedModel into a folder.
        write_tflite: file to write, {name of a weight's value: (its integers, their scale)} -> the operators of the TFLite file;
            see `backend_tf/tflite.py`.
    """

    name: str
    model: onnx_ir.Model
    graph: QuantizerGraph
    network: IntegerNetwork
    oracle: Callable[[Feeds], Mapping[str, npt.NDArray[np.int64]]]
    examples: Callable[[], Iterator[Feeds]] | None
    lowered: Callable[[], tuple[onnx_ir.Model, QuantizerGraph]]
    quantized: Callable[[onnx_ir.Model, QuantizerGraph], onnx_ir.Model]
    run: Callable[[onnx_ir.Model, Feeds, Collection[str]], Mapping[str, npt.NDArray[Any]]]
    write_saved_model: Callable[[Path], None]
    write_tflite: Callable[[Path, Mapping[str, tuple[npt.NDArray[np.int64], float]]], tuple[Mapping[str, Any], ...]]
    count: int | None = None


class Exporter(Protocol):
    """One target.

    Attributes:
        name: what the user types after `--target`.
        summary: one line: what is written.
        reader: what reads it.
        rounding: how the target rounds, by the name of `check --rounding`; the model itself rounds `half_even`.
        needs_data: whether examples must be given.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    summary: ClassVar[str]
    reader: ClassVar[str]
    rounding: ClassVar[str]
    needs_data: ClassVar[bool]

    def check(self, source: Source) -> None:
        """Refuses what the target cannot hold.

        Raises:
            UnsupportedError: naming the layer, the limit and the value.
        """
        ...

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """Writes into an empty folder; returns notes for the user, one sentence each."""
        ...


@runtime_checkable
class ChangesModel(Protocol):
    """An exporter that may write other numbers than the model's, because an option asks for it."""

    def changed_model(self, source: Source) -> onnx_ir.Model:
        """The Q/DQ model of what is written; `source.model` where nothing is changed."""
        ...
