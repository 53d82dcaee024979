"""What becomes of OpenCV's TensorFlow test graphs when nothing is said about them: no shapes, no names.

    python benchmarks/opencv_graphs.py ../shared/data/graphs/opencv [--shapes] [names ...]

For each graph: whether TensorFlow itself reproduces the expected output, the input shape that was found (`?` stays open),
and the largest difference of the converted and optimized model from the expected output, or why there is none. Arrays of
rank 3 and more are in OpenCV's order (channels first); what runs them may need them in TensorFlow's.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.ir import TqtOnnxError
from tqt_onnx.passes import optimize
from tqt_onnx.report import make_console, table
from tqt_onnx.verify import Session

TOLERANCE: Final = 1e-4
"""Of the expected output's range, or of 1: float32 sums in another order, and OpenCV's files were made by another version."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Attributes:
        name: of the graph.
        tensorflow: whether TensorFlow reproduces the expected output.
        shape: of the input, as found; None where the graph was not loaded.
        difference: from the expected output; None where it did not convert, run or have the right shape.
        reason: why it does not agree, where it does not.
    """

    name: str
    tensorflow: bool
    shape: str | None
    difference: float | None
    reason: str

    @property
    def agrees(self) -> bool:
        """Whether the converted model computes the expected output."""
        return not self.reason


def names_in(folder: Path) -> list[str]:
    """Names of the graphs in a folder."""
    return sorted(path.name.removesuffix("_net.pb") for path in folder.glob("*_net.pb"))


def examine(folder: Path, name: str, with_shape: bool = False) -> Outcome:
    """Converts one graph and compares."""
    path = folder / f"{name}_net.pb"
    source, expected = np.load(folder / f"{name}_in.npy"), np.load(folder / f"{name}_out.npy")
    layout = _layout_of_tensorflow(path, source, expected)
    feeds = [source_in for key, source_in in _layouts(source) if layout in (None, key)]
    shape, reason, best = None, "", None
    for feed in feeds:
        try:
            frozen = load(path, input_shape=feed.shape[1:] if with_shape else None)
            shape = _text(next(iter(frozen.input_shapes.values())))
            model = to_onnx(frozen)
            optimize(model)
            session = Session(model, optimize=False)
            result = session.run({frozen.inputs[0]: feed.astype(np.float32)})[frozen.outputs[0]]
        except TqtOnnxError as error:
            reason = str(error).replace(f"{path}: ", "").replace(f"{name}_net: ", "")
            continue
        except Exception as error:  # a defect of ours, or onnxruntime's refusal of the feed: the table has to show it
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        difference = _difference(result, expected)
        best = difference if best is None or (difference is not None and difference < best) else best
        reason = "" if difference is not None and difference <= _tolerance(expected) else "another result"
        if not reason:
            break
    return Outcome(name, layout is not None, shape, best, reason)


def example(folder: Path, name: str) -> Array | None:
    """The graph's input [N, ...] in the layout in which TensorFlow reproduces the output, float32; None where it does not."""
    source, expected = np.load(folder / f"{name}_in.npy"), np.load(folder / f"{name}_out.npy")
    layout = _layout_of_tensorflow(folder / f"{name}_net.pb", source, expected)
    return None if layout is None else dict(_layouts(source))[layout].astype(np.float32)


def _layout_of_tensorflow(path: Path, source: Array, expected: Array) -> str | None:
    """In which layout TensorFlow reproduces the output from the file as it is, or None where it does not."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(path.read_bytes())
    read = {name.lstrip("^").partition(":")[0] for node in graph_def.node for name in node.input}
    ends = [node.name for node in graph_def.node if node.name not in read and node.op not in ("Const", "Placeholder")]
    start = next(node.name for node in graph_def.node if node.op == "Placeholder")
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
    except ValueError:
        return None
    with tf.compat.v1.Session(graph=graph) as session:
        for key, feed in _layouts(source):
            for end in ends:
                try:
                    result = session.run(f"{end}:0", {f"{start}:0": feed})
                except (ValueError, tf.errors.OpError):
                    continue
                difference = _difference(np.asarray(result), expected)
                if difference is not None and difference <= _tolerance(expected):
                    return key
    return None


def _layouts(array: Array) -> Iterator[tuple[str, Array]]:
    """Channels last, then as it is."""
    if array.ndim > 2:
        yield "last", np.moveaxis(array, 1, -1)
    yield "as it is", array


def _difference(result: Array, expected: Array) -> float | None:
    found = [
        float(np.abs(result.astype(np.float64) - candidate.astype(np.float64)).max())
        for _, candidate in _layouts(expected)
        if candidate.shape == result.shape
    ]
    return min(found) if found else None


def _tolerance(expected: Array) -> float:
    return TOLERANCE * max(1.0, float(np.ptp(expected)))


def _text(shape: tuple[int | None, ...]) -> str:
    return ",".join("N" if axis == 0 else "?" if dim is None else str(dim) for axis, dim in enumerate(shape))


def main() -> None:
    """Prints the table and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="graphs; all of them by default")
    parser.add_argument("--shapes", action="store_true", help="give the input's shape")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    outcomes = [examine(arguments.folder, name, arguments.shapes) for name in arguments.names or names_in(arguments.folder)]
    rows = [
        (
            one.name,
            "yes" if one.tensorflow else "no",
            one.shape or "",
            "" if one.difference is None else f"{one.difference:.1e}",
            one.reason,
        )
        for one in outcomes
    ]
    console = make_console()
    console.print(table("OpenCV's TensorFlow graphs", ("graph", "TensorFlow reproduces", "input", "difference", "reason"), rows))
    both = sum(one.agrees and one.tensorflow for one in outcomes)
    console.print(
        f"{sum(one.agrees for one in outcomes)} of {len(outcomes)} agree; "
        f"{both} of the {sum(one.tensorflow for one in outcomes)} that TensorFlow reproduces"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
