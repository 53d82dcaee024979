"""`rounding`: what other rules for ties change: ties, output integers, top-1 answers."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from typing import Final

from handoff_models import Table, contract, examples, model_arguments, scratch, short, without_tail

from tqt_onnx.verbs.export import export_model
from tqt_onnx.verify import measure_rounding

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
        parser.add_argument("--tensors", action="store_true", help="a row for each tensor, not one for each model")

    @staticmethod
    def measure(given: argparse.Namespace) -> Iterator[Table]:
        """Ties up are simulated by the oracle: every rounding that has thresholds, the input's being the host's."""
        rows: list[tuple[str, int, int, int, int, str]] = []
        for path in given.models:
            model = without_tail(path)
            with scratch() as folder:
                export_model(model, "finn", folder / "out")
                tables = json.loads((folder / "out" / "thresholds.json").read_text())["tensors"]
            effects = {one.tensor: one for one in measure_rounding(model, examples(model, given), "half_up").tensors}
            found = [
                (
                    one["tensor"],
                    math.prod(one["shape"]),
                    one["moved"],
                    effects[one["tensor"]].requantized,
                    effects[one["tensor"]].changed,
                )
                for one in tables
            ]
            if not given.tensors:
                found = [(short(path), *(sum(row[column] for row in found) for column in range(1, 5)))]  # type: ignore[misc]
            rows += [(*row, f"{row[4] / row[3]:.1%}") for row in found]
        head = ("tensor" if given.tensors else "model", "thresholds", "moved", "integers", "differ with ties up", "share")
        yield Table(short(given.models[0]), f"{given.limit} examples", head, rows)
