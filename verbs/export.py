"""`export`: a quantized model in the form that a target reads.

The folder takes its name when everything is in it. Other rooms' work is handed to the exporters as values and functions: the
oracle's integers, the bounds of the certificate, the regenerated TensorFlow graph.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..ir import ModelError, UsageError, quantizers_of
from .export_folder import MANIFEST, atomic_folder, check_folder, check_inputs
from .rounding import rounding_effect, rounding_notes
from .sources import Data, Feeder, open_model

if TYPE_CHECKING:
    import onnx_ir

    from ..export import Exporter, Feeds, IntegerNetwork, Source
    from ..verify import RoundingEffect

SCHEMA: Final = "tqt_onnx.export/1"
"""Name and version of what is written there."""

_MOST_AT_ONCE: Final = 16
"""Examples that exporters are given at once."""

_MOST_NUMBERS: Final = 1 << 24
"""Integers of all tensors that the oracle returns for them, 8 bytes each, where there are several."""


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that was written.

    Attributes:
        path: relative to the folder, with forward slashes.
        bytes: its size.
        sha256: of its content, as hexadecimal digits.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Export:
    """What `export` wrote.

    Attributes:
        target: for whom.
        folder: where.
        files: all of them but the manifest itself.
        notes: what the user should know, one sentence each.
        rounding: how the target rounds.
        rounding_effect: what that changes on the data; None without data, and where the target rounds as the model does.
    """

    target: str
    folder: Path
    files: tuple[ExportedFile, ...]
    notes: tuple[str, ...]
    rounding: str
    rounding_effect: RoundingEffect | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it; `docs/json.md` says what each field means."""
        effect = None if self.rounding_effect is None else self.rounding_effect.to_dict()
        return {"schema": SCHEMA, **asdict(self), "folder": str(self.folder), "rounding_effect": effect}


def export_model(
    model: onnx_ir.Model | str | os.PathLike[str],
    target: str,
    output: str | os.PathLike[str],
    *,
    options: Mapping[str, Any] | None = None,
    data: Data | None = None,
    preprocess: str = "none",
    limit: int | None = None,
    seed: int | None = None,
    exclude: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Export:
    """Writes a quantized model in the form that a target reads.

    Args:
        model: Q/DQ model written by `quantize`.
        target: a name of `export.EXPORTERS`.
        output: folder to write; it must not exist, unless `force` is given and it is empty or was written by `export`.
        options: of the target, by the name of its field.
        data: examples, where the target writes some, or to count what another rounding changes.
        preprocess: preset for images.
        limit: at most so many examples.
        seed: draw them at random.
        exclude: names of examples to leave out, or a file of them.
        force: replace a folder that `export` wrote.

    Raises:
        UsageError: an unknown target or option, data missing, or a folder in the way.
        ModelError: not a quantized model.
        UnsupportedError: something that the target cannot hold; nothing is written.
        DataError: data that does not fit.
    """
    from ..export import ChangesModel

    exporter = make_exporter(target, options or {})
    if exporter.needs_data and data is None:
        raise UsageError(f"target {target} writes examples: --data is expected")
    if data is None and (limit, seed, exclude) != (None, None, None):
        raise UsageError("--limit, --seed and --exclude choose among examples: --data is expected beside them")
    folder = Path(output)
    check_folder(folder, force=force)
    check_inputs(folder, model, data, exclude)
    opened = open_model(model)
    file = Path(model).name if isinstance(model, (str, os.PathLike)) else ""
    name = file.removesuffix(".onnx").removesuffix(".q") or "model"
    feeder = None if data is None else Feeder(opened, data, preprocess=preprocess, limit=limit, seed=seed, exclude=exclude)
    source = make_source(opened, name, feeder)
    reads: list[str] = []
    if source.examples is not None:
        source = replace(source, examples=_noted(source.examples, reads))
    exporter.check(source)
    written = exporter.changed_model(source) if isinstance(exporter, ChangesModel) else opened
    effect = rounding_effect(written, feeder, exporter.rounding)
    with atomic_folder(folder, force=force) as temporary:
        notes = (*exporter.write(source, temporary), *rounding_notes(target, exporter.rounding, effect))
        if feeder is not None and effect is None and not reads:
            notes += (f"--data was not used: target {target} writes no examples, and rounds as the model does",)
        files = tuple(_described(path, temporary) for path in sorted(temporary.rglob("*")) if path.is_file())
        result = Export(target, folder, files, notes, exporter.rounding, effect)
        manifest = {**result.to_dict(), "options": asdict(exporter), "model": name}
        del manifest["folder"]
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return result


def _noted(examples: Callable[[], Iterator[Feeds]], reads: list[str]) -> Callable[[], Iterator[Feeds]]:
    """The examples, and a word in `reads` each time that an exporter asks for them."""

    def again() -> Iterator[Feeds]:
        reads.append("examples")
        return examples()

    return again


def make_exporter(target: str, options: Mapping[str, Any]) -> Exporter:
    """The exporter of a target with its options.

    Raises:
        UsageError: there is no such target, or it takes no such option.
    """
    from ..export import EXPORTERS

    if target not in EXPORTERS:
        raise UsageError(f"targets are {', '.join(EXPORTERS)}. Received: {target!r}")
    known = [item.name for item in fields(EXPORTERS[target])]
    odd = sorted(set(options) - set(known))
    if odd:
        takes = ", ".join("--" + name.replace("_", "-") for name in known) or "no options"
        raise UsageError(f"target {target} takes {takes}. Received: --{odd[0].replace('_', '-')}")
    exporter: Exporter = EXPORTERS[target](**options)
    return exporter


def make_source(model: onnx_ir.Model, name: str, feeder: Feeder | None) -> Source:
    """What exporters are given.

    Raises:
        ModelError: not a quantized model, or one whose recorded quantizers are not those of its nodes.
        UnsupportedError: a scale is not a power of two.
    """
    import numpy as np

    from ..export import Facts, Source, read_network
    from ..passes import insert_qdq, remove_qdq
    from ..verify import FixedPoint, Oracle, certify
    from ..verify.intervals import Intervals

    graph = quantizers_of(model)
    if graph is None:
        raise ModelError("not a quantized model: it carries no tqt_onnx.quantizers; `quantize` writes them")
    remove_qdq(model)  # finds recorded quantizers that are not those of the nodes
    oracle = Oracle(model)
    intervals = Intervals(model, oracle.plan)
    bounds = {layer.output: layer.bound for layer in certify(model, oracle.plan, intervals) if layer.bound is not None}
    tables = {value: (int(table.inputs[0]), np.asarray(table.integers)) for value, table in intervals.tables.items()}
    facts = Facts({island.node: island.reason for island in oracle.islands}, bounds, tables)

    network = read_network(model, graph, facts)
    computed = [tensor.name for tensor in network.tensors.values() if tensor.kind != "constant"]

    def integers(feeds: Feeds) -> dict[str, Any]:
        found = oracle.run(feeds, keep=computed)
        return {key: value.integers for key, value in found.items() if isinstance(value, FixedPoint)}

    def run(other: onnx_ir.Model, feeds: Feeds, names: Collection[str]) -> dict[str, Any]:
        found = Oracle(other).run(feeds, keep=names)
        return {key: value.real() if isinstance(value, FixedPoint) else value for key, value in found.items()}

    def saved_model(folder: Path) -> None:
        from ..frontend_tf.quiet import quiet

        with quiet():
            from ..backend_tf.saved_model import write_saved_model

            write_saved_model(*remove_qdq(model), _tables(network), folder)

    def tflite(file: Path, weights: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        from ..frontend_tf.quiet import quiet

        with quiet():
            from ..backend_tf.tflite import write_tflite

            floats = {part.node for part in network.float_parts}
            found: tuple[Mapping[str, Any], ...] = write_tflite(*remove_qdq(model), _tables(network), weights, floats, file)
            return found

    examples = None if feeder is None else lambda: feeder.feeds(feeder.rows(_at_once(network)))
    count = None if feeder is None else len(feeder)
    return Source(
        name,
        model,
        graph,
        network,
        integers,
        examples,
        lambda: remove_qdq(model),
        insert_qdq,
        run,
        saved_model,
        tflite,
        count,
    )


def _at_once(network: IntegerNetwork) -> int:
    """How many examples exporters are given at once."""
    computed = [tensor for tensor in network.tensors.values() if tensor.kind != "constant"]
    numbers = sum(math.prod(size or 1 for size in tensor.shape) for tensor in computed)
    return max(1, min(_MOST_AT_ONCE, _MOST_NUMBERS // max(1, numbers)))


def _tables(network: IntegerNetwork) -> dict[str, Any]:
    """The functions of a network as `backend_tf` takes them, by the name of the value that they compute (L12)."""
    from ..backend_tf.fixed import Table

    found = {}
    for step in network.steps:
        for operation in step.operations:
            if operation.op == "Table":
                read, entries = network.tensors[operation.inputs[0]], operation.attributes["entries"]
                value = network.tensors[step.output].value
                found[value] = Table(read.value, read.exponent, operation.attributes["first"], entries, operation.exponent)
    return found


def _described(path: Path, folder: Path) -> ExportedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ExportedFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
