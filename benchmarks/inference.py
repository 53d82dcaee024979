"""Float model against quantized model on onnxruntime: the two run in turn, and the ratio of each turn is what counts.

    python benchmarks/inference.py model.onnx model.q.onnx --batch 1 --repeats 50 --threads 1
    tqt-onnx export model.q.onnx --target qdq -o qdq && python benchmarks/inference.py model.onnx qdq/model.onnx

Runs in turn share whatever else the machine is doing, so the median of the ratios is far steadier than a ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import tqt_onnx
from tqt_onnx.report import make_console, table
from tqt_onnx.verify import fused_operators
from tqt_onnx.verify.runtime import session_options

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measures, prints a table and writes `results/inference_*.json`."""
    arguments = parse()
    files = arguments.float_model, arguments.quantized_model
    paths = dict(zip(labels(*files), files, strict=True))
    if len(paths) != 2:
        raise SystemExit("two files are expected")
    sessions = {label: open_session(path, arguments.threads) for label, path in paths.items()}
    feeds = {name: random_feeds(session, arguments.batch) for name, session in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(-arguments.warmup, arguments.repeats):
        order = list(sessions) if turn % 2 else list(reversed(sessions))  # neither is always the first of its turn
        for name in order:
            began = time.perf_counter()
            sessions[name].run(None, feeds[name])
            if turn >= 0:
                times[name].append(time.perf_counter() - began)
    plain, quantized = times.values()
    ratios = sorted(a / b for a, b in zip(plain, quantized, strict=True))
    rows = [
        (
            label,
            1000 * statistics.median(times[label]) / arguments.batch,
            1000 * min(times[label]) / arguments.batch,
            path.stat().st_size,
            ", ".join(f"{count} {name}" for name, count in fused_operators(tqt_onnx.load(path)).most_common()),
        )
        for label, path in paths.items()
    ]
    console = make_console()
    columns = ("model", "median ms an image", "fastest", "bytes", "operators when optimized")
    console.print(table(f"batch {arguments.batch}, {arguments.threads} threads, {arguments.repeats} turns", columns, rows))
    quarter = len(ratios) // 4
    middle = statistics.median(ratios)
    console.print(
        f"quantized is {middle:.2f} times as fast (middle half of the turns: {ratios[quarter]:.2f} .. {ratios[-1 - quarter]:.2f})"
    )
    write(
        f"inference_{arguments.quantized_model.stem}_b{arguments.batch}_t{arguments.threads}.json",
        {
            "onnxruntime": onnxruntime.__version__,
            "batch": arguments.batch,
            "threads": arguments.threads,
            "seconds": times,
            "median_ratio": middle,
            "operators": {row[0]: row[4] for row in rows},
        },
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float_model", type=Path)
    parser.add_argument("quantized_model", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if min(arguments.batch, arguments.repeats, arguments.threads) < 1:
        parser.error("batch, repeats and threads must be positive")
    return arguments


def labels(float_model: Path, quantized_model: Path) -> tuple[str, str]:
    """What the two are called in the table: file names, with their folders where an export is called as its source is."""
    if float_model.name != quantized_model.name:
        return float_model.name, quantized_model.name
    return str(float_model), str(quantized_model)


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """The model as users run it: all optimizations, on this many threads."""
    options = session_options(optimize=True)
    options.use_deterministic_compute = False
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def random_feeds(session: onnxruntime.InferenceSession, batch: int) -> dict[str, Any]:
    """Standard normal inputs; free dimensions other than the first are refused."""
    feeds = {}
    for value in session.get_inputs():
        free = [dim for dim in value.shape[1:] if not isinstance(dim, int)]
        if free:
            raise SystemExit(f"input {value.name}: fixed dimensions behind the batch are expected. Received: {value.shape}")
        feeds[value.name] = np.random.default_rng(0).normal(size=(batch, *value.shape[1:])).astype(np.float32)
    return feeds


def write(name: str, content: dict[str, Any]) -> None:
    """One JSON file in `results/`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps(content, indent=1))
    print(f"written to {RESULTS / name}")


if __name__ == "__main__":
    main()
