"""One model the whole road: convert, quantize at several widths, check in every engine; and what docs/coverage.md says of it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy.typing as npt

from tqt_onnx import frontend_tf
from tqt_onnx.frontend_tf import FrozenGraph
from tqt_onnx.frontend_tf import load as read
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.check import check
from tqt_onnx.verbs.convert import Conversion, convert
from tqt_onnx.verbs.quantize import Quantization, quantize
from tqt_onnx.verify import CheckResult

Setting = tuple[int, int]
"""Bits of weights, bits of layers (16: L1, 32: L11)."""

ALL: tuple[Setting, ...] = ((8, 16), (8, 32), (4, 16), (4, 32))
"""Of small networks: everything."""

NETWORK: tuple[Setting, ...] = ((8, 16), (4, 32))
"""Of whole networks: each width and each contract once."""

ENGINES = ("oracle", "ort", "tf")

HANDED_ON = frozenset({"Const", "Identity", "NoOp", "Placeholder", "PlaceholderWithDefault"})
"""Operators that every graph has."""

Data = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Journey:
    """What became of one model.

    Attributes:
        conversion: the float model and how it compares with its source.
        operators: TensorFlow operators of the graph it was compared with, without what only holds or hands on; empty for ONNX.
        quantizations: setting -> the quantized model.
        checks: setting -> its comparison.
    """

    conversion: Conversion
    operators: tuple[str, ...]
    quantizations: dict[Setting, Quantization]
    checks: dict[Setting, CheckResult]

    @property
    def islands(self) -> tuple[str, ...]:
        """Operators that stay float beyond the Softmax at the end, one entry per node, sorted."""
        first = next(iter(self.quantizations.values()))
        return tuple(sorted(island.op_type for island in first.float_layers))

    def assert_exact(self, islands: Sequence[str] = (), without_certificate: int = 0) -> None:
        """Zero differing integers at every setting.

        Args:
            islands: operators that are expected to stay float, one entry per node.
            without_certificate: layers that may be neither certified nor exhausted, at most.
        """
        assert self.conversion.ok, f"convert differs by {self.conversion.difference:.1e} of the range"
        for setting, quantization in self.quantizations.items():
            assert sorted(island.op_type for island in quantization.float_layers) == sorted(islands), setting
        for setting, outcome in self.checks.items():
            assert outcome.ok and outcome.differences == (), (setting, outcome.differences[:3])
            assert outcome.not_compared == () and outcome.layers_not_compared == (), setting
            missing = [layer for layer in outcome.certificates if not layer.promised]
            assert len(missing) <= without_certificate, (setting, missing)
            if not missing and not islands:
                assert outcome.not_certified == (), (setting, outcome.not_certified[:3])


def take(
    source: Any,
    images: Data,
    *,
    settings: Sequence[Setting] = ALL,
    engines: Sequence[str] = ENGINES,
    bits: BitWidths | None = None,
    check_images: int | None = None,
    **options: Any,
) -> Journey:
    """Takes a model the whole road.

    Args:
        source: anything `convert` takes.
        images: calibrates, and is what the engines are compared on.
        settings: widths and contracts.
        engines: of `check`.
        bits: everything else about widths (first and last layer, for instance).
        check_images: compare on so many of the images only.
        **options: of `convert`.
    """
    loaded: list[FrozenGraph] = []

    def load(*given: Any, **named: Any) -> FrozenGraph:
        loaded.append(read(*given, **named))
        return loaded[-1]

    with patch.object(frontend_tf, "load", load):
        conversion = convert(source, **options)
    found = {node.op for frozen in loaded for node in frozen.graph_def.node}
    operators = tuple(sorted(found - HANDED_ON))
    quantizations, checks = {}, {}
    for weight, layer in settings:
        widths = replace(bits or BitWidths(), weight=weight, layer=layer)  # type: ignore[arg-type]
        quantization = quantize(conversion.model, images, bits=widths)
        quantizations[weight, layer] = quantization
        checks[weight, layer] = check(quantization.model, images, engines=engines, limit=check_images)
    return Journey(conversion, operators, quantizations, checks)


@dataclass(frozen=True)
class Row:
    """One line of docs/coverage.md.

    Attributes:
        section: a key of `coverage_page.TITLES`.
        name: of the operator, topology, network or file.
        operators: TensorFlow's names of what it consists of; of small graphs only.
        convert: `yes`, or why not.
        int8: what was exact, at each contract that was run.
        int4: likewise.
        islands: operators that stay float, with their number; those at the network's end (Softmax) are said to be.
        images: how many the engines were compared on.
    """

    section: str
    name: str
    operators: str
    convert: str
    int8: str = ""
    int4: str = ""
    islands: str = ""
    images: int = 0


MANY = 12
"""Operators beyond which a graph is a network, not an example of one."""

Record = Callable[[str, str, "Journey | str"], None]


def row_of(section: str, name: str, journey: Journey | str) -> Row:
    """The line about a journey, or about a model that is refused with a reason."""
    if isinstance(journey, str):
        return Row(section, name, "", f"refused: {journey}")
    quantization = next(iter(journey.quantizations.values()))
    ends = [island.op_type for island in quantization.islands if island.expected]
    islands = [f"{count} {op}" for op, count in sorted(Counter(journey.islands).items())]
    islands += [f"at the end {count} {op}" for op, count in sorted(Counter(ends).items())]
    cells = {bits: _cell(journey, bits) for bits in (8, 4)}
    verdict = "yes" if journey.conversion.ok else "differs"
    operators = ", ".join(journey.operators) if len(journey.operators) <= MANY else ""
    images = min(outcome.images for outcome in journey.checks.values())
    return Row(section, name, operators, verdict, cells[8], cells[4], ", ".join(islands), images)


def _cell(journey: Journey, bits: int) -> str:
    """`layer16 9/9 · layer32 8+1/9`: certified (+ exhausted) of all layers per contract where engines agree, else what does not."""
    parts = []
    for (weight, layer), outcome in journey.checks.items():
        if weight != bits:
            continue
        certified = sum(certificate.certified for certificate in outcome.certificates)
        exhausted = f"+{len(outcome.exhausted)}" if outcome.exhausted else ""
        verdict = "" if outcome.ok else " NOT EXACT"
        missing = [name for name in ENGINES[1:] if name not in outcome.engines]
        engines = f" (not in {', '.join(missing)})" if missing else ""
        parts.append(f"layer{layer} {certified}{exhausted}/{len(outcome.certificates)}{engines}{verdict}")
    return " · ".join(parts)


def record(section: str, name: str, journey: Journey | str) -> None:
    """Hands the line to `coverage_page.py`, where the folder `TQT_ONNX_COVERAGE` asks for it; call it behind the assertions."""
    folder = os.environ.get("TQT_ONNX_COVERAGE")
    row = row_of(section, name, journey)
    if folder:
        file = Path(folder) / f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
