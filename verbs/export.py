"""`export`: a quantized model in the form that a target reads.

The folder takes its name when everything is in it. Other rooms' work is handed to the exporters as values and functions: the
oracle's integers, the bounds of the certificate, the regenerated TensorFlow graph.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..ir import ModelError, UsageError, quantizers_of
from .sources import Data, Feeder, open_model

if TYPE_CHECKING:
    import onnx_ir

    from ..export import Exporter, Feeds, Source

MANIFEST: Final = "export.json"
SCHEMA: Final = "tqt_onnx.export/1"
"""Name and version of what is written there."""

_PART: Final = 1 << 20


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
    """

    target: str
    folder: Path
    files: tuple[ExportedFile, ...]
    notes: tuple[str, ...]
    rounding: str

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it; `docs/json.md` says what each field means."""
        return {"schema": SCHEMA, **asdict(self), "folder": str(self.folder)}


def export(
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
    exporter = make_exporter(target, options or {})
    if exporter.needs_data and data is None:
        raise UsageError(f"target {target} writes examples: --data is expected")
    folder = Path(output)
    check_folder(folder, force=force)
    opened = open_model(model)
    name = Path(model).name.split(".")[0] if isinstance(model, (str, os.PathLike)) else "model"
    feeder = None if data is None else Feeder(opened, data, preprocess=preprocess, limit=limit, seed=seed, exclude=exclude)
    source = make_source(opened, name or "model", feeder)
    exporter.check(source)
    with atomic_folder(folder, force=force) as temporary:
        notes = exporter.write(source, temporary)
        files = tuple(_described(path, temporary) for path in sorted(temporary.rglob("*")) if path.is_file())
        result = Export(target, folder, files, tuple(notes), exporter.rounding)
        written = {**result.to_dict(), "options": asdict(exporter), "model": name}
        del written["folder"]
        (temporary / MANIFEST).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return result


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
    from ..passes import remove_qdq
    from ..verify import FixedPoint, Oracle, certify
    from ..verify.intervals import Intervals

    graph = quantizers_of(model)
    if graph is None:
        raise ModelError("not a quantized model: it carries no tqt_onnx.quantizers; `quantize` writes them")
    remove_qdq(model)  # finds recorded quantizers that are not those of the nodes
    oracle = Oracle(model)
    bounds = {layer.output: layer.bound for layer in certify(model, oracle.plan) if layer.bound is not None}
    tables = {
        value: (int(table.inputs[0]), np.asarray(table.integers)) for value, table in Intervals(model, oracle.plan).tables.items()
    }
    facts = Facts({island.node: island.reason for island in oracle.islands}, bounds, tables)

    network = read_network(model, graph, facts)
    computed = [tensor.name for tensor in network.tensors.values() if tensor.kind != "constant"]

    def integers(feeds: Feeds) -> dict[str, Any]:
        found = oracle.run(feeds, keep=computed)
        return {key: value.integers for key, value in found.items() if isinstance(value, FixedPoint)}

    def saved_model(folder: Path) -> None:
        from ..frontend_tf.quiet import quiet

        with quiet():
            from ..backend_tf.saved_model import write_saved_model

            write_saved_model(*remove_qdq(model), folder)

    def tflite(folder: Path) -> tuple[str, ...]:
        from ..frontend_tf.quiet import quiet

        with quiet():
            from ..backend_tf.tflite import write_tflite

            notes: tuple[str, ...] = write_tflite(*remove_qdq(model), folder)
            return notes

    examples = None if feeder is None else lambda: feeder.feeds(4)
    return Source(name, model, graph, network, integers, examples, saved_model, tflite)


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuses a folder that is in the way, before any work is done.

    Raises:
        UsageError: it exists and `force` is not given; or it holds something that `export` did not write; or it cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder}: exists and is no folder; the name of a folder to write is expected")
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise UsageError(f"{folder}: exists; give another name, or --force to replace it")
        if not _is_ours(folder):
            raise UsageError(f"{folder}: holds no {MANIFEST} of an export, so it is not replaced; give another name")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder}: its folder {folder.absolute().parent} does not exist")
    try:
        with tempfile.NamedTemporaryFile(dir=folder.absolute().parent, prefix=f".{folder.name}.", suffix=".part"):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None


def _is_ours(folder: Path) -> bool:
    """Whether an export wrote the folder, and nothing was put beside its files since."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = {entry["path"] for entry in manifest["files"]} | {MANIFEST}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} <= listed


@contextmanager
def atomic_folder(folder: Path, *, force: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name when the block ends well and vanishes when it does not.

    Raises:
        UsageError: as `check_folder`.
    """
    check_folder(folder, force=force)
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}.", suffix=".part"))
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        try:
            yield temporary
            check_folder(folder, force=force)  # somebody may have written there meanwhile
            if folder.is_dir():
                shutil.rmtree(folder)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _described(path: Path, folder: Path) -> ExportedFile:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_PART):
            digest.update(part)
    return ExportedFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest.hexdigest())
