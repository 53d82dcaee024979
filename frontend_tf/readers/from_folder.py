"""Which model a folder holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...ir import ModelError
from ..request import Request
from .checkpoint import Checkpoint, checkpoint_at, newest_checkpoint, part
from .from_saved_model import FILES

_SINGLE: Final = (".pb", ".keras", ".h5", ".hdf5", ".pbtxt")
"""In this order: text graphs are often written for TensorBoard beside the model proper."""


def model_in(folder: Path, request: Request) -> Path:
    """The model in a folder: itself where it is a SavedModel, else a file in it, else a folder in it with a SavedModel.

    | folder | model |
    |---|---|
    | `saved_model.pb`, `variables/` | the SavedModel |
    | `my_model.pb`, `checkpoint`, `my_model.ckpt.*` (Graffitist's layout) | the `.pb` with its checkpoint |
    | `checkpoint`, `model.ckpt-1000.{index,meta,data*}` | the `.meta` of the newest checkpoint |
    | one `.keras` or `.h5` | that file |
    | `1589000001/`, `1589000002/`, each a SavedModel | the one with the highest number |

    Raises:
        ModelError: nothing, or several models, or a checkpoint without a graph.
    """
    if any((folder / name).is_file() for name in FILES):
        return folder
    graphs = sorted(path for path in folder.glob("*.pb") if path.is_file() and path.name != "fingerprint.pb")
    if len(graphs) == 1:
        return graphs[0]
    prefix = newest_checkpoint(folder) if request.checkpoint is None else checkpoint_at(request.checkpoint)
    if prefix is not None and part(prefix, ".meta").is_file():
        return part(prefix, ".meta")
    for suffix in _SINGLE:
        found = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() == suffix)
        if len(found) == 1:
            return found[0]
        if found:
            raise ModelError(
                f"{folder}: holds several models; name one of them. Received: {', '.join(path.name for path in found)}"
            )
    metas = sorted(folder.glob("*.meta"))
    if prefix is None and len(metas) == 1:
        return metas[0]
    inner = list(_inner(folder))
    if len(inner) == 1 or (inner and all(path.name.isdecimal() for path in inner)):
        return max(inner, key=lambda path: int(path.name) if path.name.isdecimal() else 0)
    raise ModelError(_nothing(folder, prefix, [path.name for path in (*metas, *inner)]))


def _inner(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and any((path / name).is_file() for name in FILES):
            yield path


def _nothing(folder: Path, prefix: str | None, several: list[str]) -> str:
    name = "" if prefix is None else part(prefix, ".meta").name.removesuffix(".meta")
    if prefix is not None and Checkpoint(prefix).is_object_based:
        return (
            f"{folder}: holds a TensorFlow 2 checkpoint, which is weights without a graph; "
            f"a SavedModel or a .keras file of the model is expected. Received: {name}"
        )
    if prefix is not None:
        expected = f"{name}.meta or a .pb beside it is expected"
        return f"{folder}: holds a checkpoint without its graph; {expected}. Received: {name}"
    if several:
        return f"{folder}: holds several models; name one of them. Received: {', '.join(several)}"
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    return f"{folder}: is a folder that holds no model; a SavedModel, a checkpoint or a model file is expected. Received: {there}"
