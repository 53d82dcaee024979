"""`rounding`: what other rules for ties change: ties, output integers, top-1 answers."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Final

from handoff_models import Table, contract, examples, model_arguments, scratch, short, without_tail

from tqt_onnx.verbs.export import export_model
from tqt_onnx.verify import FixedPoint, Oracle, measure_rounding, rounding_ops

RULES: Final = ("half_up", "half_away", "floor_pool")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the subcommand."""
    model_arguments(parser, limit=50)


def measure(given: argparse.Namespace) -> Iterator[Table]:
    """One row for each model."""
    rows = []
    for path in given.models:
        model = without_tail(path)
        effects = [measure_rounding(model, examples(model, given), rule) for rule in RULES]
        ties, rounded = (sum(getattr(one, name) for one in effects[0].tensors) for name in ("ties", "requantized"))
        cells = [f"{one.changed / one.numbers:.1%}, {one.answers_changed} answers" for one in effects]
        rows.append((short(path), contract(model), effects[0].images, f"{ties / rounded:.1%}", *cells))
    yield Table(short(given.models[0]), "integers and answers that change", ("model", "contract", "images", "ties", *RULES), rows)


class Finn:
    """`finn`: thresholds that ties to even move, and integers that differ where they are left with ties up."""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Of the subcommand."""
        model_arguments(parser, limit=20)
        parser.add_argument("--tensors", action="store_true", help="a row for each tensor, too")

    @staticmethod
    def measure(given: argparse.Namespace) -> Iterator[Table]:
        """The oracle rounds ties up; the input is rounded by the host, as ever."""
        rows: list[tuple[str, int, int, int, int]] = []
        for path in given.models:
            model = without_tail(path)
            with scratch() as folder:
                export_model(model, "finn", folder / "out")
                tables = json.loads((folder / "out" / "thresholds.json").read_text())["tensors"]
            names = [one["tensor"] for one in tables]
            even, up = Oracle(model), Oracle(model, rounding_ops("half_up"))
            numbers: Counter[str] = Counter()
            differ: Counter[str] = Counter()
            for feeds in examples(model, given):
                expected, found = (oracle.run(feeds, keep=names) for oracle in (even, up))
                for name in names:
                    plain, other = expected[name], found[name]
                    assert isinstance(plain, FixedPoint) and isinstance(other, FixedPoint)
                    numbers[name] += plain.integers.size
                    differ[name] += int((plain.integers != other.integers).sum())
            own = [
                (name, math.prod(one["shape"]), one["moved"], numbers[name], differ[name])
                for name, one in zip(names, tables, strict=True)
            ]
            whole = (f"{short(path)}, all", *(sum(column) for column in zip(*(row[1:] for row in own), strict=True)))
            rows += [*own, whole] if given.tensors else [whole]
        head = ("tensor", "thresholds", "moved", "integers", "differ with ties up", "share")
        cells = [(*row, f"{row[4] / row[3]:.1%}") for row in rows]
        yield Table(short(given.models[0]), f"{given.limit} examples", head, cells)
