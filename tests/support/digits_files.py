"""The same training digits in every form that data comes in."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from digits_network import digits
from PIL import Image
from record_files import example, write

COUNT: Final = 120
"""Training digits that are written."""


def arrays(count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """The first training digits and their labels."""
    return digits().train[:count], digits().train_labels[:count]


def npz(folder: Path) -> Path:
    x, y = arrays()
    np.savez(folder / "digits.npz", x=x, y=y)
    return folder / "digits.npz"


def npy(folder: Path) -> Path:
    """Without labels."""
    np.save(folder / "digits.npy", arrays()[0])
    return folder / "digits.npy"


def class_folders(folder: Path) -> Path:
    for name, image in _images().items():
        path = folder / "digits" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    return folder / "digits"


def archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "digits.zip", "w") as file:
        for name, image in _images().items():
            file.writestr(name, image)
    return folder / "digits.zip"


def table(folder: Path) -> Path:
    lines = ["file,label"]
    for name, image in _images().items():
        (folder / Path(name).name).write_bytes(image)
        lines.append(f"{Path(name).name},{Path(name).parent}")
    (folder / "digits.csv").write_text("\n".join(lines) + "\n")
    return folder / "digits.csv"


def records(folder: Path) -> Path:
    """As slim writes them."""
    return write(folder / "digits.tfrecord", [example(image, int(Path(name).parent.name)) for name, image in _images().items()])


FORMS: Final[dict[str, Callable[[Path], Path]]] = {
    "npz": npz,
    "npy": npy,
    "folder": class_folders,
    "zip": archive,
    "csv": table,
    "records": records,
}
"""Name -> writes the digits into a folder; images are for the preprocessing `unit`."""


def _images() -> dict[str, bytes]:
    """`label/number.png` -> grey PNG."""
    found = {}
    for row, (image, label) in enumerate(zip(*arrays(), strict=True)):
        buffer = BytesIO()
        Image.fromarray(np.rint(image[..., 0] * 255).astype(np.uint8)).save(buffer, "PNG")
        found[f"{label}/{row:03}.png"] = buffer.getvalue()
    return found
