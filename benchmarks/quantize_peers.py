"""Quantizing one float model with this project and with onnxruntime's quantizer: time, memory, accuracy.

    python benchmarks/quantize_peers.py model.onnx --data images/ --preprocess signed_unit --label-offset 1 --calibration-images 50
    python benchmarks/quantize_peers.py model.onnx --data test.zip --calibration calib.npy

Every run is a process of its own, from its start to the written file, and time and peak memory are those of the whole process.
The runs take turns, `--repeat` times; medians are shown. Each tool calibrates on N images and on 2 N, to see how time and memory
grow. With `--calibration-images N` both sets are drawn from `--data` and what is left is evaluated; a `--calibration` file
holds the 2 N images, prepared, and must have none in common with `--data`.

onnxruntime's quantizer gets its own preparation step, QDQ, one scale per tensor, uint8 activations, int8 weights, one image at a
time. It needs `sympy` (`pip install sympy`); without it only our rows are measured. Tools that write the same bytes are named:
measured with onnxruntime 1.31.1, `quantize_static` collects 128 bins once and its entropy search over 128 levels then has a
single candidate, the full range, so that "entropy" is minmax at a higher cost and no second opinion on accuracy.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from tqt_onnx.datasets import AccuracyResult, Dataset

# This file is also the child that runs onnxruntime's quantizer: everything heavy is imported where it is used, so that the
# child is charged for nothing of ours.

RESULTS = Path(__file__).parent / "results"
CHILD = "--child"
LAUNCHER = """
import json, os, subprocess, sys, time
errors = open(sys.argv[1], "wb")
began = time.perf_counter()
process = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=errors)
_, status, usage = os.wait4(process.pid, 0)
scale = 1 if sys.platform == "darwin" else 1024
print(json.dumps([time.perf_counter() - began, usage.ru_maxrss * scale, os.waitstatus_to_exitcode(status)]))
"""
"""A process starts out with the peak of the one that launched it, so the launcher must be small: not this one."""

Command = Callable[[Path, Path, Path], list[str]]


def ours(*extra: str) -> Command:
    """Our command line."""

    def command(model: Path, calibration: Path, output: Path) -> list[str]:
        arguments = [str(model), "-o", str(output), "--calibration", str(calibration), "--layer-bits", "32", "--force", *extra]
        return [sys.executable, "-m", "tqt_onnx", "quantize", *arguments]

    return command


def onnxruntime_quantizer(method: str) -> Command:
    """The `quantize_static` of onnxruntime."""

    def command(model: Path, calibration: Path, output: Path) -> list[str]:
        return [sys.executable, str(Path(__file__).resolve()), CHILD, method, str(model), str(calibration), str(output)]

    return command


TOOLS: dict[str, Command] = {
    "ours": ours(),
    "ours, parallel": ours("--parallel-calibration"),
    "onnxruntime minmax": onnxruntime_quantizer("MinMax"),
    "onnxruntime entropy": onnxruntime_quantizer("Entropy"),
    "onnxruntime percentile": onnxruntime_quantizer("Percentile"),
}


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        tool: which quantizer.
        images: calibration images.
        seconds: from its start to its end.
        peak: largest resident set in bytes.
        failure: how it failed, or the empty string.
    """

    tool: str
    images: int
    seconds: float
    peak: int
    failure: str


def main() -> None:
    """Measures, prints tables and writes `results/quantize_peers_*.json`."""
    arguments = parse()
    from tqt_onnx.report import accuracy_table, make_console, table

    calibration, images, data = prepare(arguments)
    tools = {name: command for name, command in TOOLS.items() if name in arguments.tools}
    console = make_console()
    runs: list[Run] = []
    written: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        sets = {count: save(Path(folder), calibration[:count]) for count in (images, 2 * images)}
        for _ in range(arguments.repeat):
            for name, command in tools.items():
                for count, file in sets.items():
                    output = Path(folder) / f"{list(tools).index(name)}_{count}.onnx"
                    run = measure(name, count, command(arguments.model, file, output), Path(folder))
                    runs.append(run)
                    if run.failure:
                        console.print(f"{name}, {count} images: {run.failure}")
                    else:
                        written.setdefault(f"{name}, {count}", output)
        same = identical(written)
        result, notes = accuracy({"float": arguments.model, **written}, data, arguments.label_offset)
    columns = ("quantizer", "images", "seconds", "peak MB", "time x", "memory x", "top-1")
    shares = {model.name: model.top1_share for model in result.models}
    console.print(table(f"{arguments.model.name}, median of {arguments.repeat}", columns, rows(runs, tools, images, shares)))
    console.print(accuracy_table(result))
    for name, note in notes.items():
        console.print(f"{name}: {note}")
    for names in same:
        console.print(f"byte for byte the same model: {' = '.join(names)}")
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"quantize_peers_{arguments.model.stem}.json"
    content = {"runs": [asdict(run) for run in runs], "top1": shares, "identical": same, "notes": notes, "evaluated": result.count}
    file.write_text(json.dumps(content, indent=1))
    console.print(f"written to {file}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="float ONNX, as `tqt-onnx convert` writes it")
    parser.add_argument("--data", type=Path, required=True, help="labelled images or arrays to evaluate on")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--calibration", type=Path, help=".npy of prepared images")
    source.add_argument("--calibration-images", type=int, metavar="N", help="draw 2 N of the data instead")
    parser.add_argument("--preprocess", default="none")
    parser.add_argument("--label-offset", type=int, default=0)
    parser.add_argument("--limit", type=int, help="evaluate on at most so many images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS), metavar="TOOL", help=", ".join(TOOLS))
    arguments = parser.parse_args()
    if min(arguments.repeat, arguments.calibration_images or 1, arguments.limit or 1) < 1:
        parser.error("repeat, calibration-images and limit must be positive")
    if importlib.util.find_spec("sympy") is None:
        print("onnxruntime's quantizer needs sympy (pip install sympy): its rows are left out", file=sys.stderr)
        arguments.tools = [name for name in arguments.tools if not name.startswith("onnxruntime")]
    return arguments


def prepare(arguments: argparse.Namespace) -> tuple[npt.NDArray[Any], int, Dataset]:
    """Calibration images [2 N, ...], N, and what is evaluated."""
    from onnxruntime import InferenceSession

    from tqt_onnx.datasets import open_dataset

    shape = InferenceSession(arguments.model, providers=["CPUExecutionProvider"]).get_inputs()[0].shape[1:]
    data = open_dataset(arguments.data, input_shape=tuple(shape), preprocess=arguments.preprocess, seed=arguments.seed)
    if arguments.calibration is None:
        chosen, data = data.split(2 * arguments.calibration_images, arguments.seed)
        calibration = chosen.array()
    else:
        calibration = open_dataset(arguments.calibration, input_shape=tuple(shape)).array()
    if len(calibration) < 2:
        raise SystemExit("at least two calibration images are expected")
    return calibration, len(calibration) // 2, data if arguments.limit is None else data.take(arguments.limit)


def save(folder: Path, images: npt.NDArray[Any]) -> Path:
    """The images as a `.npy` file."""
    import numpy as np

    file = folder / f"calibration_{len(images)}.npy"
    np.save(file, images)
    return file


def measure(tool: str, images: int, command: list[str], folder: Path) -> Run:
    """Runs a process to its end by way of a small launcher, which reports its time and its peak memory."""
    errors = folder / "errors.txt"
    launched = [sys.executable, "-S", "-c", LAUNCHER, str(errors), *command]
    seconds, peak, status = json.loads(subprocess.run(launched, check=True, capture_output=True, text=True).stdout)
    lines = errors.read_text(errors="replace").strip().splitlines() or ["no message"]
    return Run(tool, images, seconds, peak, f"exit status {status}: {lines[-1][:300]}" if status else "")


def identical(models: dict[str, Path]) -> list[list[str]]:
    """Names of models that are the same file, where there are several: one measurement of accuracy, not two."""
    by_digest: dict[str, list[str]] = {}
    for name, path in models.items():
        by_digest.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(name)
    return [names for names in by_digest.values() if len(names) > 1]


def rows(runs: list[Run], tools: dict[str, Command], images: int, shares: dict[str, float]) -> list[tuple[Any, ...]]:
    """Medians of each tool and number of images, growth from N to 2 N, top-1 accuracy."""

    def median(name: str, count: int, field: str) -> float | None:
        values = [getattr(run, field) for run in runs if (run.tool, run.images, run.failure) == (name, count, "")]
        return statistics.median(values) if values else None

    found = []
    for name in tools:
        for count in (images, 2 * images):
            seconds, peak = median(name, count, "seconds"), median(name, count, "peak")
            once = median(name, images, "seconds"), median(name, images, "peak")
            growth = [a / b if count != images and a and b else None for a, b in ((seconds, once[0]), (peak, once[1]))]
            found.append(
                (name, count, seconds, None if peak is None else round(peak / 1e6), *growth, shares.get(f"{name}, {count}"))
            )
    return found


def accuracy(models: dict[str, Path], data: Dataset, label_offset: int) -> tuple[AccuracyResult, dict[str, str]]:
    """All models on the same images in onnxruntime (of any opset, hence not `evaluate`), and notes on how a model was run."""
    from tqt_onnx.datasets import AccuracyCounter

    sessions, notes = {}, {}
    for name, path in models.items():
        sessions[name], notes[name] = open_session(path)
    counter = AccuracyCounter(list(models), label_offset=label_offset)
    for inputs, labels in data.batches(32):
        outputs = {name: session.run(None, {session.get_inputs()[0].name: inputs})[0] for name, session in sessions.items()}
        counter.update(outputs, labels)
    return counter.result(), {name: note for name, note in notes.items() if note}


def open_session(path: Path) -> tuple[Any, str]:
    """The model with all optimizations, or, where onnxruntime fails to load it so, with basic ones and a note that says it.

    Measured with 1.31.1: its quantizer's output for an opset 21 model with an AveragePool does not load with all of them.
    """
    import onnxruntime

    from tqt_onnx.verify.runtime import session_options

    options, providers = session_options(optimize=True), ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers), ""
    except Exception as error:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = onnxruntime.InferenceSession(path, options, providers=providers)
        reason = " ".join(str(error).split())
        return session, f"evaluated with basic optimizations; with all of them it does not load: ...{reason[-80:]}"


def child(method: str, model: str, calibration: str, output: str) -> None:
    """Quantizes with onnxruntime; what `TOOLS` runs."""
    import numpy as np
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no type stubs
        def __init__(self, name: str, images: npt.NDArray[Any]) -> None:
            self._rest = iter([{name: images[i : i + 1]} for i in range(len(images))])

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            return next(self._rest, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(model, prepared)
        name = onnx.load(prepared).graph.input[0].name
        quantization.quantize_static(
            prepared,
            output,
            Reader(name, np.load(calibration)),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=False,
            calibrate_method=quantization.CalibrationMethod[method],
        )


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(*sys.argv[2:])
    else:
        main()
