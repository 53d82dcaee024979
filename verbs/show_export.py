"""What `export` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..report import make_console, table

if TYPE_CHECKING:
    from .export import Export


def show_targets() -> None:
    """One line for each target."""
    from dataclasses import fields

    from ..export import EXPORTERS

    rows = [
        (name, exporter.summary, exporter.reader, ", ".join("--" + item.name.replace("_", "-") for item in fields(exporter)))
        for name, exporter in EXPORTERS.items()
    ]
    make_console().print(table("Targets", ("target", "what is written", "read by", "options"), rows))


def show_export(result: Export) -> None:
    """The files, and what the user should know of them."""
    console = make_console()
    rows = [(item.path, f"{item.bytes:,}", item.sha256[:12]) for item in result.files]
    console.print(table(f"{result.folder}: for {result.target}", ("file", "bytes", "sha256"), rows))
    for note in result.notes:
        console.print(note)
