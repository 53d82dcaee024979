"""The page of what goes the whole road: written from results, and told apart from them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from coverage_page import main, page, read
from whole_road import Row

ROWS = [
    Row("networks", "resnet_v1_101", "", "yes", "layer16 9/9", "layer32 8+1/9", "at the end 1 Softmax", 2),
    Row("networks", "resnet_v1_50", "", "yes", "layer16 9/9", "layer32 9/9", "", 2),
    Row("operators", "Add", "AddV2, Conv2D", "yes", "layer16 2/2", "layer32 2/2", "", 4),
    Row("files", "someone's", "", "refused: it is none"),
]


def recorded(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir()
    (folder / "gw0.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_written_and_found_the_same(tmp_path: Path) -> None:
    results, file = recorded(tmp_path / "r", [*ROWS, ROWS[0]]), tmp_path / "page.md"
    assert main([str(results), str(file)]) == 0
    text = file.read_text()
    assert [row.name for row in read(results)] == ["Add", "resnet_v1_50", "resnet_v1_101", "someone's"]
    assert "| resnet_v1_101 |  | yes | layer16 9/9 | layer32 8+1/9 | at the end 1 Softmax | 2 |\n" in text
    assert "| someone's |  | refused: it is none | - | - | - | - |\n" in text
    assert main([str(results), str(file), "--check"]) == 0


CHANGES: dict[str, Any] = {
    "another verdict": ("layer16 9/9 |", "layer16 9/9 NOT EXACT |", 1),
    "another number of layers": ("layer16 2/2", "layer16 2/3", 1),
    "another number of certificates": ("layer32 8+1/9", "layer32 9/9", 0),
    "an island": ("| 0 | 4 |", "| 1 Resize | 4 |", 1),
    "a line that no test says": ("| Add |", "| Sub |  | yes | layer16 1/1 | layer32 1/1 | 0 | 4 |\n| Add |", 1),
    "a file that is absent here": ("| someone's |", "| another's |  | yes | layer16 1/1 | layer32 1/1 | 0 | 4 |\n| someone's |", 0),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_page_says_otherwise(tmp_path: Path, what: str) -> None:
    old, new, status = CHANGES[what]
    results, file = recorded(tmp_path / "r", ROWS), tmp_path / "page.md"
    text = page(read(results))
    assert old in text
    file.write_text(text.replace(old, new, 1))
    assert main([str(results), str(file), "--check"]) == status


def test_two_results_of_one_line_are_none(tmp_path: Path) -> None:
    twice = [*ROWS, Row("operators", "Add", "AddV2, Conv2D", "yes", "layer16 2/3", "layer32 2/2", "", 4)]
    results, file = recorded(tmp_path / "r", twice), tmp_path / "page.md"
    assert main([str(results), str(file)]) == 1
    assert not file.exists()


def test_nothing_recorded_or_no_page(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    assert main([str(tmp_path / "r"), str(tmp_path / "page.md")]) == 1
    assert main([str(recorded(tmp_path / "s", ROWS)), str(tmp_path / "page.md"), "--check"]) == 1
