"""Nodes against seconds and memory, stage by stage, from the TensorFlow graph to the last comparison.

    python benchmarks/scaling.py                            # residual networks of growing depth, and the growth of each stage
    python benchmarks/scaling.py --blocks 14 56 170
    python benchmarks/scaling.py --networks resnet_v1_50 resnet_v1_152 InceptionResNetV2 --size 96

Each network runs in a process of its own. Seconds are processor time, so that other work on the machine does not count; memory
is the peak of the resident set above what the stage began with. The last column is the slope of log(seconds) over log(nodes)
between the smallest and the largest residual network: 1 is "as the nodes". A stage above 1.25 that takes at least a second is
marked and makes the exit status 1; what is faster is dominated by fixed costs.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

STEEPEST = 1.25
"""Slope up to which a stage is said to grow as the nodes: caches and memory make the same work slower in larger networks."""

WORTHWHILE = 1.0
"""Seconds for the largest network from which on a slope means something."""

IMAGES = 16

_T = TypeVar("_T")


@dataclass
class Meter:
    """Seconds and peak memory of stages.

    Attributes:
        seconds: of processor time, by stage.
        megabytes: above what the stage began with, by stage; empty where the system does not tell.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)

    def __call__(self, stage: str, work: Callable[[], _T]) -> _T:
        """Does the work of one stage."""
        gc.collect()
        before = _resident("VmRSS", reset_peak=True)
        start = time.process_time()
        result = work()
        self.seconds[stage] = time.process_time() - start
        if before is not None:
            self.megabytes[stage] = (_resident("VmHWM") or before) - before
        return result


def _resident(key: str, *, reset_peak: bool = False) -> float | None:
    """A line of /proc/self/status in megabytes; None where there is none."""
    try:
        if reset_peak:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), None)


def measure(source: Any, size: int, engines: tuple[str, ...]) -> dict[str, Any]:
    """One network the whole road, a stage at a time: what `convert`, `quantize` and `check` do, in their order."""
    from tqt_onnx.calibrate import calibrate
    from tqt_onnx.frontend_tf import load, to_onnx
    from tqt_onnx.passes import OPTIMIZE, BitWidths, InferShapes, annotate, insert_qdq, islands, lower, optimize, run_passes
    from tqt_onnx.verbs.check import check, tensorflow_runner
    from tqt_onnx.verbs.convert import probes
    from tqt_onnx.verify import Oracle, Session, certify, tapped_runner

    meter = Meter()
    frozen = meter("convert: freeze", lambda: load(source))
    model = meter("convert: tf2onnx", lambda: to_onnx(frozen))
    meter("convert: passes", lambda: run_passes(model, OPTIMIZE))

    def compare() -> None:
        session = Session(model, optimize=False)
        for feeds in probes(frozen)[:2]:
            session.run(feeds)
            frozen.run(feeds)

    meter("convert: compare", compare)
    nodes = len(model.graph)
    shape = [IMAGES if axis == 0 else dim for axis, dim in enumerate(model.graph.inputs[0].shape or ())]
    images = np.random.default_rng(0).uniform(-1, 1, [dim if isinstance(dim, int) else size for dim in shape]).astype(np.float32)
    feeds = {str(model.graph.inputs[0].name): images}

    def lowered() -> Any:
        copy = model.clone()
        optimize(copy)
        lower(copy, "layer16")
        return copy

    copy = meter("quantize: optimize, lower", lowered)
    graph = meter("quantize: annotate", lambda: annotate(copy, BitWidths()))
    thresholds = meter("quantize: calibrate", lambda: calibrate(copy, graph, lambda: iter([feeds])))
    decided = graph.decide(thresholds)

    def inserted() -> Any:
        islands(copy)
        result = insert_qdq(copy, decided)
        InferShapes().apply(result)
        return result

    quantized = meter("quantize: insert", inserted)
    few = {name: array[:2] for name, array in feeds.items()}
    meter("check: certificate", lambda: certify(quantized))
    meter("check: oracle", lambda: Oracle(quantized).run(few))
    meter("check: ort", lambda: tapped_runner(quantized)(few))
    meter("check: ort-optimized", lambda: Session(quantized, optimize=True, count_operators=True).run(few))
    if "tf" in engines:
        meter("check: tf", lambda: tensorflow_runner(quantized)(few))
    outcome = meter("check: everything", lambda: check(quantized, images, engines=engines, limit=2))
    return {"nodes": nodes, "seconds": meter.seconds, "megabytes": meter.megabytes, "ok": outcome.ok}


def residual(blocks: int, folder: Path) -> Path:
    """A chain of `conv -> bn -> relu -> conv -> bn -> add -> relu`, 16 channels, 8 x 8; every eighth block has a projection."""
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def layer(x: Any, kernel: int, name: str) -> Any:
        weights = rng.normal(0, math.sqrt(1 / (kernel * kernel * 16)), (kernel, kernel, int(x.shape[-1]), 16)).astype(np.float32)
        y = tf.nn.conv2d(x, weights, 1, "SAME", name=f"{name}/conv")
        scale, offset, mean, variance = (rng.uniform(0.5, 1.5, 16).astype(np.float32) for _ in range(4))
        return tf.raw_ops.FusedBatchNormV3(
            x=y, scale=scale, offset=offset - 1, mean=mean - 1, variance=variance, is_training=False, name=f"{name}/norm"
        )[0]

    with tf.Graph().as_default() as graph:
        x = tf.nn.relu(layer(tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), "input"), 3, "stem"))
        for block in range(blocks):
            y = tf.nn.relu(layer(x, 3, f"block{block}/a"))
            shortcut = layer(x, 1, f"block{block}/shortcut") if block % 8 == 0 else x
            x = tf.nn.relu(0.5 * (shortcut + layer(y, 3, f"block{block}/b")), name=f"block{block}/relu")
        x = tf.reduce_mean(x, (1, 2))
        tf.nn.softmax(tf.matmul(x, rng.normal(0, 1, (16, 10)).astype(np.float32)), name="output")
    path = folder / f"residual_{blocks}.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def network(name: str, size: int, folder: Path) -> Any:
    """A real topology with random weights: `residual:56`, a name of `keras.applications`, or a ResNet of TF-Slim."""
    if name.startswith("residual:"):
        return residual(int(name.partition(":")[2]), folder)
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    if name.startswith("resnet_v1"):
        from slim_networks import resnet_v1  # type: ignore[import-not-found]

        return resnet_v1(name, size).save(folder / f"{name}.pb")
    import keras

    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))


def main() -> int:
    """Prints a table for each stage, and the slopes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[14, 56, 170], help="lengths of the residual networks")
    parser.add_argument("--networks", nargs="*", default=[], help="instead: resnet_v1_50, ..., or of keras.applications")
    parser.add_argument("--size", type=int, default=96, help="height and width of the images of --networks")
    parser.add_argument("--engines", default="oracle,ort,tf")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            source = network(arguments.one, arguments.size, Path(folder))
            print(json.dumps(measure(source, arguments.size, tuple(arguments.engines.split(",")))))
        return 0
    names = arguments.networks or [f"residual:{blocks}" for blocks in arguments.blocks]
    results = {name: _in_process_of_its_own(name, arguments) for name in names}
    return _report(results, slopes=not arguments.networks and len(names) > 1)


def _in_process_of_its_own(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, "--size", str(arguments.size), "--engines", arguments.engines]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _report(results: dict[str, dict[str, Any]], *, slopes: bool) -> int:
    from tqt_onnx.report import make_console, table

    console, first, last = make_console(), *(list(results.values())[index] for index in (0, -1))
    headings = [f"{name} ({result['nodes']} nodes)" for name, result in results.items()]
    rows, steep = [], 0
    for stage in first["seconds"]:
        cells = [f"{r['seconds'][stage]:.2f} s  {r['megabytes'].get(stage, math.nan):.0f} MB" for r in results.values()]
        if slopes:
            ratio = max(last["seconds"][stage], 1e-3) / max(first["seconds"][stage], 1e-3)
            slope = math.log(ratio) / math.log(last["nodes"] / first["nodes"])
            too_steep = slope > STEEPEST and last["seconds"][stage] >= WORTHWHILE
            steep += too_steep
            cells.append(f"{slope:.2f}{' !' if too_steep else ''}")
        rows.append((stage, *cells))
    console.print(table("processor seconds, peak memory", ("stage", *headings, *(["slope"] if slopes else [])), rows))
    wrong = [name for name, result in results.items() if not result["ok"]]
    if wrong:
        console.print(f"not exact: {', '.join(wrong)}")
    return 1 if steep or wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
