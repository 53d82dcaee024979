"""docs/coverage.md from what the tests recorded: `coverage_page.py RESULTS docs/coverage.md` writes it, `--check` compares it.

RESULTS is the folder that `TQT_ONNX_COVERAGE` named while the tests ran. Exit status 1: the page says something else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path

from whole_road import Row

TITLES = {
    "operators": "Operators, by their TensorFlow names",
    "topologies": "Topologies",
    "networks": "Networks, full depth, random weights, reduced resolution",
    "styles": "ONNX files in the style of other tools",
    "files": "Files of other people",
}

HEAD = """# What goes the whole road

Written by `make coverage` from the results of the tests; `make test` fails where it says something else.

Each line was converted and compared with its source (at most 1e-4 of the output's range apart, or no more than float32
leaves open), quantized with 8-bit and with 4-bit weights, and run on a few images (the last column; the networks have
random weights) in the int64 oracle, in onnxruntime (every tensor without its optimizations, the outputs with all of
them) and in the regenerated TensorFlow graph. Every tensor was compared in each of the two, and no promised integer
differs.

`layer16 9/9` says: contract, layers with a certificate (exact whatever the data) of all layers, sums, products and
tables. In `170+3/173` three are tables without one all of whose entries were run in every engine. Of layers that are
neither nothing is promised: they were compared too, and what differs in them is named by `check`. How many are
certified follows from calibrated scales and may differ by a few on another machine; everything else here may not.

*Float* are the operators that stay float: nothing is promised of them, and what follows is compared from their own
results. Networks run at reduced resolution: kernels as large as the image (VGG's fc6, MobileNet's average pool) shrink
with it.
"""

COLUMNS = ("TensorFlow operators", "convert", "int8", "int4", "float", "images")


def read(folder: Path) -> list[Row]:
    """What was recorded, in the order of sections and names; a test that ran twice counts once."""
    rows = {Row(**json.loads(line)) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()}
    return sorted(rows, key=lambda row: (list(TITLES).index(row.section), _natural(row.name), astuple(row)))


def _natural(name: str) -> list[tuple[int, str]]:
    """`resnet_v1_50` before `resnet_v1_101`."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def page(rows: Iterable[Row]) -> str:
    """The page as Markdown."""
    lines, section = [HEAD], ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines.append(f"\n## {TITLES[section]}\n\n| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}\n")
        lines.append(line(row))
    return "".join(lines)


def line(row: Row) -> str:
    """One line of a table."""
    islands = row.islands or ("0" if row.int8 else "-")
    cells = (row.name, row.operators, row.convert, row.int8 or "-", row.int4 or "-", islands, str(row.images or "-"))
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def differences(rows: Sequence[Row], text: str) -> list[str]:
    """What the page lacks, what it says though no test does (files of other people may be absent), what tests disagree on."""
    written = [_settled(one) for one in re.findall(r"^\| (?!\|).*\|$", text, re.MULTILINE)]
    recorded = [_settled(line(row).strip()) for row in rows]
    missing = [f"missing: {one}" for one in recorded if one not in written]
    own = _settled(text.partition(f"## {TITLES['files']}")[0])
    stale = [f"no test says: {one}" for one in written if one in own and one not in recorded]
    pairs = itertools.pairwise(rows)
    twice = [f"two tests, two results: {a.section}, {a.name}" for a, b in pairs if (a.section, a.name) == (b.section, b.name)]
    return missing + stale + twice


def _settled(text: str) -> str:
    """Without the counts that calibrated scales decide: how many of the layers are certified or exhausted."""
    return re.sub(r"(layer\d+) \d+(?:\+\d+)?/(\d+)", r"\1 /\2", text)


def main(arguments: Sequence[str]) -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args(arguments)
    rows = read(chosen.results)
    if not rows:
        sys.stderr.write(f"{chosen.results}: nothing was recorded\n")
        return 1
    text = page(rows) if not chosen.check else chosen.page.read_text(encoding="utf-8") if chosen.page.is_file() else ""
    found = differences(rows, text)
    if not chosen.check and not found:
        chosen.page.write_text(text, encoding="utf-8")
    sys.stderr.write("".join(f"{chosen.page}: {one}\n" for one in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
