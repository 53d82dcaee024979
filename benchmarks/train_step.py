"""What a training step of the quantized network costs, against one of the same regenerated network in float.

    TQT_ONNX_DATA=../shared/data python benchmarks/train_step.py
    python benchmarks/train_step.py resnet50 --contracts layer16 --ways float native composed --repeats 5

The ways take turns in one process, and the median of each turn's ratio to `float` is what counts; processor time, of all threads
together, is the steadier number where other work shares the machine. Peak memory is that of a process of its own for each way,
with TensorFlow. Rows:

- `float`: forward, backward to the weights and an Adam update, of the network with its batch norms folded before training. Its
  operators are those a plain Keras network without batch norms has.
- `native`, `xla`: the same network quantized, with gradients of the thresholds and an Adam update of these too; the two forms of
  `kernels/epilogue.py`, with a compiler and without one.
- `composed`: the same, operator by operator.
- `fakequant`: the same with TensorFlow's FakeQuant operators in the place of every quantizer (bounds from the same thresholds, ties
  rounded up).
- `trained`, `trained-float`: what `quantize --retrain` does in a step, in the modes both and float: batch norms kept and frozen, so
  gamma and beta train too and are folded in float64 in every step; cross-entropy with labels; a check that the loss is finite;
  learning rates of the schedule; thresholds with momentum, average and freeze mask. Their ratios too are to `float`. A training
  makes TensorFlow deterministic as well: `--deterministic` does so for all rows.

ResNet50 has random normal weights; mobilenet is the file of that name below TQT_ONNX_DATA. Writes `results/train_step_*.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

RESULTS = Path(__file__).parent / "results"
TRAINED: Final = {"trained": "both", "trained-float": "float"}
WAYS: Final = ("float", "native", "xla", "composed", "fakequant", *TRAINED)
CONTRACTS: Final = {"layer16": 16, "layer32": 32}


@dataclass(frozen=True)
class Network:
    """A network, its batch, and the aim: the ratio to float that a step should stay below."""

    title: str
    batch: int
    aim: float


NETWORKS: Final = {
    "mobilenet": Network("mobilenet_v1_0.25_128", 32, 1.6),
    "resnet50": Network("ResNet50", 8, 1.3),
}


def main() -> None:
    """Prepares the networks, measures each in processes of its own, prints tables and writes JSON."""
    arguments = parse()
    if arguments.child:
        print(json.dumps(measure(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks:
            files = prepare(name, arguments, Path(folder))
            for contract, file in files.items():
                report(name, contract, file, arguments)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    default = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of models (TQT_ONNX_DATA)")
    parser.add_argument("--contracts", nargs="+", choices=CONTRACTS, default=list(CONTRACTS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--size", type=int, default=224, help="height and width of ResNet50's images")
    parser.add_argument("--batch", type=int, help="images a step; 32 for mobilenet, 8 for ResNet50 by default")
    parser.add_argument("--repeats", type=int, default=15, help="turns")
    parser.add_argument("--deterministic", action="store_true", help="make TensorFlow deterministic first")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # the quantized model to measure
    arguments = parser.parse_args()
    if set(arguments.networks) - set(NETWORKS) or arguments.repeats < 1:
        parser.error(f"networks of {', '.join(NETWORKS)} and at least one turn are expected")
    if not arguments.child:
        arguments.ways = list(dict.fromkeys(["float", *arguments.ways]))
    return arguments


def prepare(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """The Q/DQ model of every contract, calibrated on random images; beside it, where asked for, what `trained` trains."""
    import tqt_onnx
    from tqt_onnx.passes import BitWidths

    size = 128 if name == "mobilenet" else arguments.size
    source = arguments.data / "models" / "mobilenet_v1_0.25_128_frozen.pb" if name == "mobilenet" else resnet50(size)
    model = tqt_onnx.convert(source).model
    images = np.random.default_rng(0).normal(size=(8, size, size, 3)).astype(np.float32)
    files = {}
    for contract in arguments.contracts:
        files[contract] = folder / f"{name}_{contract}.onnx"
        quantized = tqt_onnx.quantize(model, images, bits=BitWidths(layer=CONTRACTS[contract]), parallel=True)
        tqt_onnx.save(quantized.model, files[contract])
        if set(arguments.ways) & set(TRAINED):
            kept = tqt_onnx.convert(source, keep_batch_norm=True).model
            bits = BitWidths(layer=CONTRACTS[contract])
            tqt_onnx.to_keras(kept, images, bits=bits, parallel=True).save(files[contract].with_suffix(".keras"))
    return files


def resnet50(size: int) -> Any:
    """The topology with normal weights: uniform ones, Keras' default, would not pass the certificate of X1 and run in float64."""
    import keras

    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            shape = layer.kernel.shape
            layer.kernel.assign(random.normal(size=shape, scale=np.sqrt(2 / np.prod(shape[:3]))))
    return model


def report(name: str, contract: str, file: Path, arguments: argparse.Namespace) -> None:
    """Measures one network in one contract and prints its table."""
    from tqt_onnx.report import make_console, table

    network = NETWORKS[name]
    batch = arguments.batch or network.batch
    times = run_child(file, batch, arguments.repeats, arguments.ways, arguments.deterministic)
    memory = {way: run_child(file, batch, 2, [way], arguments.deterministic)["megabytes"] for way in arguments.ways}
    rows, ratios, processor = [], {}, {}
    for way in arguments.ways:
        turns, used = (of_float(times[clock], way) for clock in ("seconds", "processor"))
        ratios[way], processor[way] = statistics.median(turns), statistics.median(used)
        middle = f"{turns[len(turns) // 4]:.2f} .. {turns[-1 - len(turns) // 4]:.2f}"
        seconds = 1000 * statistics.median(times["seconds"][way])
        megabytes = memory[way] / memory["float"]
        rows.append((way, seconds, ratios[way], middle, processor[way], times["tracing"][way], memory[way], megabytes))
    columns = ("way", "median ms", "of float", "middle half", "processor time", "tracing s", "peak MB", "of float's")
    title = f"{network.title}, {contract}, batch {batch}, {arguments.repeats} turns; aim {network.aim}"
    console = make_console()
    console.print(table(title, columns, rows))
    console.print(f"layers in float64: {times['wide']}")
    if set(TRAINED) <= set(arguments.ways):
        time_, memory_ = (found["trained"] / found["trained-float"] for found in (ratios, memory))
        console.print(f"trained, of trained-float's: {time_:.2f} times the time, {memory_:.2f} times the memory")
    RESULTS.mkdir(exist_ok=True)
    content = {"batch": batch, "aim": network.aim, "deterministic": arguments.deterministic}
    content |= {"ratios": ratios, "processor_ratios": processor, **times, "megabytes": memory}
    (RESULTS / f"train_step_{name}_{contract}.json").write_text(json.dumps(content, indent=1))


def of_float(times: dict[str, list[float]], way: str) -> list[float]:
    """The ratios of the turns, sorted."""
    return sorted(a / b for a, b in zip(times[way], times["float"], strict=True))


def run_child(file: Path, batch: int, repeats: int, ways: list[str], deterministic: bool) -> dict[str, Any]:
    """What `measure` finds in a process of its own."""
    options = {"--child": file, "--batch": batch, "--repeats": repeats}
    command = [sys.executable, __file__, *(str(part) for pair in options.items() for part in pair), "--ways", *ways]
    command += ["--deterministic"] * deterministic
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every turn and of tracing by way, and the peak memory of this process."""
    import tensorflow as tf

    import tqt_onnx
    from tqt_onnx.backend_tf import regenerate
    from tqt_onnx.passes import remove_qdq

    if arguments.deterministic:
        tf.random.set_seed(0)
        tf.config.experimental.enable_op_determinism()
    model = None
    if set(arguments.ways) - set(TRAINED):  # else its variables would count as memory of a training
        model = regenerate(*remove_qdq(tqt_onnx.load(arguments.child)))
    (feed,) = tqt_onnx.load(arguments.child).graph.inputs
    shape = [arguments.batch, *list(feed.shape or ())[1:]]
    images = tf.constant(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    steps, tracing = {}, {}
    for way in arguments.ways:
        began = time.perf_counter()
        if way in TRAINED:  # traced by its first run
            steps[way] = trained_step(arguments.child.with_suffix(".keras"), arguments.batch, way)
            steps[way](images)
        else:
            with as_in(way):
                steps[way] = step(model, feed.name, way).get_concrete_function(tf.TensorSpec(images.shape))
        tracing[way] = time.perf_counter() - began
        for _ in range(2):  # the first run compiles and optimizes
            steps[way](images)
    seconds, processor = ({way: list[float]() for way in steps} for _ in range(2))
    for turn in range(arguments.repeats):
        for way in list(steps) if turn % 2 else reversed(steps):  # none is always the first of its turn
            began, used = time.perf_counter(), time.process_time()
            steps[way](images).numpy()
            seconds[way].append(time.perf_counter() - began)
            processor[way].append(time.process_time() - used)
    return {
        "seconds": seconds,
        "processor": processor,
        "tracing": tracing,
        "megabytes": peak_mb(),
        "wide": len(model.wide_layers()) if model else None,
    }


def peak_mb() -> float:
    """Largest resident memory of this process; `ru_maxrss` alone would be that of the parent where that was larger."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def step(model: Any, name: str, way: str) -> Any:
    """A traced training step: images to loss."""
    import keras
    import tensorflow as tf

    weights, quantized = model.trainable_weights_only, way != "float"
    thresholds = tf.Variable(model.threshold_vector())
    optimizers = keras.optimizers.Adam(1e-6), keras.optimizers.Adam(1e-2)
    optimizers[0].build(weights)
    optimizers[1].build([thresholds])
    logits = model.logit_names[0]
    forward = model.forward if way in ("float", "native", "xla") else one_by_one(model)

    def train(images: Any) -> Any:
        with tf.GradientTape() as tape:
            log2_t = tf.convert_to_tensor(thresholds)
            found = forward({name: images}, log2_t if quantized else None, quantized=quantized, also=(logits,))
            loss = tf.reduce_mean(tf.square(found[logits]))
        sources = [*(weight.value for weight in weights), *([thresholds] if quantized else [])]
        gradients = tape.gradient(loss, sources)
        optimizers[0].apply(gradients[: len(weights)], weights)
        if quantized:
            optimizers[1].apply(gradients[len(weights) :], [thresholds])
        return loss

    return tf.function(train, autograph=False)


def trained_step(file: Path, batch: int, way: str) -> Callable[[Any], Any]:
    """The step of a training: images to loss and accuracy."""
    import tensorflow as tf

    from tqt_onnx.backend_tf import load_model
    from tqt_onnx.backend_tf.training.losses import heads_of, make_loss
    from tqt_onnx.backend_tf.training.phase import phase_at
    from tqt_onnx.backend_tf.training.schedule import Schedule
    from tqt_onnx.backend_tf.training.state import TrainingState
    from tqt_onnx.backend_tf.training.steps import Steps

    model, schedule, strategy = load_model(file), Schedule(batch=batch), tf.distribute.get_strategy()
    loss = make_loss("labels", heads_of(model))
    state = TrainingState(model, schedule, 1000, strategy)
    phase = phase_at(0, TRAINED[way], schedule, statistics_steps=0, all_frozen=False)
    state.facts.wide = sorted(model.wide_layers()) if phase.quantized else []
    steps = Steps(state, loss, None, strategy, batch, schedule.regularization)
    (name,) = model.program.inputs
    labels = np.random.default_rng(0).integers(0, loss.classes, batch)
    return lambda images: steps.run(phase, {0: ({name: images}, labels)})


def one_by_one(model: Any) -> Callable[..., Any]:
    """`forward` without the fusion of `backend_tf/fusion.py`."""

    def forward(feeds: Any, thresholds: Any, *, quantized: bool, also: tuple[str, ...]) -> Any:
        assert quantized
        _, trace = model._run(feeds, model.wide_layers(), model._decided, thresholds=thresholds)
        return {name: trace.value(name).onnx for name in also}

    return forward


@contextmanager
def as_in(way: str) -> Iterator[None]:
    """While a step of this way is traced: no native operators for `xla`, TensorFlow's quantizers for `fakequant`."""
    from tqt_onnx.kernels import native, tqt

    place, attribute, other = {
        "xla": (native, "operators", lambda: None),
        "fakequant": (tqt, "quantize_at", fake_quant),
    }.get(way, (native, "operators", native.operators))
    kept = getattr(place, attribute)
    setattr(place, attribute, other)
    try:
        yield
    finally:
        setattr(place, attribute, kept)


def fake_quant(x: Any, exponent: Any, bits: int, signed: bool, limit: float | None = None) -> Any:
    """TensorFlow's operator in the place of `tqt.quantize_at`; a 32-bit bias, which it does not know, stays as it is."""
    import tensorflow as tf

    from tqt_onnx.kernels.fixed_point import bounds

    if bits > 16:
        return x
    lowest, highest = bounds(bits, signed)
    scale = tf.exp(exponent * float(np.log(2)))
    if limit is not None:
        x = tf.nn.relu6(x) if limit == 6.0 else tf.minimum(x, tf.constant(limit, x.dtype))
    x = tf.cast(x, tf.float32)
    return tf.quantization.fake_quant_with_min_max_vars(x, scale * lowest, scale * highest, bits)


if __name__ == "__main__":
    main()
