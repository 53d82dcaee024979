"""`integer`: time of the integer file against that of the Q/DQ model, on one thread of onnxruntime, in turns."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
from handoff_agree import compared, onnxruntime_run
from handoff_models import Table, contract, examples, model_arguments, scratch, short, without_tail
from inference import open_session, random_feeds
from onnx import helper, numpy_helper

import tqt_onnx
from tqt_onnx.verbs.export import export_model
from tqt_onnx.verify.runtime import session_options


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the subcommand."""
    model_arguments(parser, limit=20)
    parser.add_argument("--repeats", type=int, default=200)


def measure(given: argparse.Namespace) -> Iterator[Table]:
    """One row for each model; the differing integers are those of the outputs in front of a Softmax."""
    rows = []
    for path in given.models:
        model = without_tail(path)
        with scratch() as folder:
            export_model(model, "integer", folder / "out")
            (file,) = (folder / "out").glob("*.onnx")
            tqt_onnx.save(model, folder / "model.q.onnx")
            sessions = [open_session(one, 1) for one in (folder / "model.q.onnx", file)]
            seconds = in_turns(sessions, [random_feeds(session, 1) for session in sessions], given.repeats)
            _, numbers, differ = compared(model, onnxruntime_run(folder / "out"), examples(model, given))
        rows.append((short(path), contract(model), *compared_times(seconds), numbers, differ))
    head = ("model", "contract", "Q/DQ, fastest ms", "integer, fastest ms", "ratio", "numbers compared", "differ")
    yield Table(short(given.models[0]), f"1 image, 1 thread, {given.repeats} turns", head, rows)


def in_turns(sessions: list[onnxruntime.InferenceSession], feeds: list[dict[str, Any]], repeats: int) -> list[list[float]]:
    """Seconds of every run of each, neighbours in time being neighbours in the lists."""
    seconds: list[list[float]] = [[] for _ in sessions]
    for turn in range(-5, repeats):
        for session, fed, times in zip(sessions, feeds, seconds, strict=True):
            began = time.perf_counter()
            session.run(None, fed)
            if turn >= 0:
                times.append(time.perf_counter() - began)
    return seconds


def compared_times(seconds: list[list[float]]) -> tuple[str, str, str]:
    """Milliseconds of the fastest run of each, and the second over the first: other work on the machine does not shorten a run."""
    first, second = (1000 * min(times) for times in seconds)
    return f"{first:.2f}", f"{second:.2f}", f"{second / first:.2f}"


class Kernels:
    """`kernels`: a ConvInteger of uint8 by weights stored as uint8 with a zero point of 128, and as int8."""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Of the subcommand."""
        parser.add_argument("--repeats", type=int, default=100)

    @staticmethod
    def measure(given: argparse.Namespace) -> Iterator[Table]:
        """One row for each shape."""
        rows = []
        for channels, size, kernel, groups in ((64, 28, 3, 1), (128, 28, 1, 1), (64, 28, 3, 64)):
            sessions = [convolution(channels, size, kernel, groups, stored) for stored in (np.uint8, np.int8)]
            x = np.random.default_rng(1).integers(0, 256, (1, channels, size, size)).astype(np.uint8)
            assert (sessions[0].run(None, {"x": x})[0] == sessions[1].run(None, {"x": x})[0]).all()
            seconds = in_turns(sessions, [{"x": x}] * 2, given.repeats)
            shape = f"{kernel}x{kernel}, {channels} channels, {groups} groups, {size}x{size}"
            rows.append((shape, *compared_times(seconds)))
        head = ("ConvInteger", "uint8 weights, fastest ms", "int8 weights, fastest ms", "ratio")
        yield Table("conv_integer", f"onnxruntime {onnxruntime.__version__}, 1 thread, {given.repeats} turns", head, rows)


def convolution(channels: int, size: int, kernel: int, groups: int, stored: Any) -> onnxruntime.InferenceSession:
    """The same integers as weights, in either type."""
    weights = np.random.default_rng(0).integers(-128, 128, (channels, channels // groups, kernel, kernel))
    point = 128 if stored == np.uint8 else 0
    constants = {"w": (weights + point).astype(stored), "x_zero": np.array(0, np.uint8), "w_zero": np.array(point, stored)}
    node = helper.make_node("ConvInteger", ["x", *constants], ["y"], group=groups, pads=[kernel // 2] * 4)
    shape = [1, channels, size, size]
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, kind in (("x", 2), ("y", 6))]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "convolution", ends[:1], ends[1:], tensors)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = session_options(optimize=True)
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
