"""Trainings in processes of their own: killed and resumed, on several devices, by several workers, and with a worker lost."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tiny_training
from tiny_training import Batches, network, weights_digest

from tqt_onnx.backend_tf import regenerate
from tqt_onnx.backend_tf.training import Schedule, train

STEPS = {"steps": 60, "weight_lr": 0.02, "weight_optimizer": "sgd-momentum"}  # unlike Adam it feels a factor on the gradient
EVERY = 5
SECONDS = 240.0
"""Longest that a process may take, so that nothing hangs; on an idle machine each takes a few seconds."""


@pytest.fixture(name="reference", scope="module")
def one_process_that_never_stopped():
    """The trained model."""
    model = regenerate(*network())
    train(model, Batches(), schedule=Schedule(batch=8, **STEPS))
    return model


@contextmanager
def started(options: dict[str, Any], cluster: tuple[list[int], int] | None = None) -> Iterator[subprocess.Popen[str]]:
    """One process of a training; ended with the block."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_CONFIG", None)
    if cluster is not None:
        ports, index = cluster
        workers = [f"127.0.0.1:{port}" for port in ports]
        environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
    command = [sys.executable, tiny_training.__file__, json.dumps({"schedule": STEPS, **options})]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    deadline = threading.Timer(SECONDS, process.kill)
    deadline.start()
    try:
        yield process
    finally:
        deadline.cancel()
        process.kill()
        process.wait()


def lines(process: subprocess.Popen[str]) -> list[str]:
    """All that it writes until its end."""
    text, _ = process.communicate()
    return text.splitlines()


def read_to(process: subprocess.Popen[str], step: int) -> None:
    """Waits until a step is done."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == f"step {step}":
            return
    pytest.fail(f"the process ended before step {step}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_a_training_that_is_killed_loses_one_interval_at_most_and_ends_the_same(tmp_path):
    chance, schedule = random.Random(0), {**STEPS, "steps": 200}  # more than are done before the signal is there
    options = {"folder": str(tmp_path), "checkpoint_every": EVERY, "select": True, "schedule": schedule}
    reached = 0
    for _ in range(2):
        with started(options) as process:
            reached += chance.randint(10, 25)
            read_to(process, reached)
            time.sleep(chance.random() / 50)  # somewhere in a step, or while a checkpoint is written
            process.send_signal(signal.SIGKILL)
            steps = [int(line.split()[1]) for line in lines(process) if line.startswith("step ")]
            reached = max([reached, *steps])
        newest = json.loads((tmp_path / "checkpoints" / "latest.json").read_text())[0]
        assert reached - int(newest.removeprefix("step-")) <= EVERY
    with started(options) as process:
        found = json.loads(lines(process)[-1])
    selected = regenerate(*network())
    selection = Batches(seed=7)
    expected = train(selected, Batches(), schedule=Schedule(batch=8, **schedule), select=lambda: [selection.batch(0)])
    assert reached - EVERY <= found["resumed_from"]
    assert found["steps"] == expected.steps
    assert found["weights"] == weights_digest(selected)
    assert found["log2_t"] == selected.log2_thresholds()


def same_as_one_process(found: dict[str, Any], model: Any) -> None:
    """The sums over replicas are those over the batch, in another order (T3)."""
    expected = model.log2_thresholds()
    assert set(found["log2_t"]) == set(expected)
    for group, log2_t in expected.items():
        assert found["log2_t"][group] == pytest.approx(log2_t, abs=2e-3), group
        assert np.ceil(found["log2_t"][group]) == np.ceil(log2_t), group
    begun = regenerate(*network()).arrays()
    for name, array in model.arrays().items():
        assert found["norms"][name] == pytest.approx(float(np.linalg.norm(array)), rel=1e-3), name
        assert not np.allclose(np.linalg.norm(array), np.linalg.norm(begun[name]), rtol=5e-3), name  # else it would say nothing


def test_two_devices_train_as_one_with_the_double_batch(reference):
    with started({"strategy": "mirrored", "devices": 2}) as process:
        same_as_one_process(json.loads(lines(process)[-1]), reference)


@contextmanager
def two_workers(options: dict[str, Any]) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """The chief and the other worker of one training."""
    ports = free_ports(2)
    whole = {"strategy": "multi-worker", **options}
    with started(whole, (ports, 0)) as chief, started(whole, (ports, 1)) as other:
        yield chief, other


def test_one_worker_interrupted_stops_both_at_one_step_and_going_on_they_train_as_one_with_the_double_batch(reference, tmp_path):
    folder, go = tmp_path / "train", tmp_path / "go"
    with two_workers({"folder": str(folder), "pause": [12, str(go)]}) as (chief, other):
        read_to(chief, 12)
        other.send_signal(signal.SIGINT)
        time.sleep(0.1)
        go.touch()
        stopped = [json.loads(lines(worker)[-1]) for worker in (chief, other)]
    assert [(found["steps"], found["interrupted"]) for found in stopped] == [(20, True)] * 2
    with two_workers({"folder": str(folder)}) as (chief, other):
        first, second = lines(chief), lines(other)
    found = json.loads(first[-1])
    assert found["resumed_from"] == 20
    same_as_one_process(found, reference)
    assert first[-1] == second[-1]
    assert "step 60" in first
    assert len(second) == 1  # only the chief tells and writes
    assert (folder / "checkpoints" / "step-60.index").is_file()


def test_when_a_worker_is_lost_the_others_stop_with_one_line_and_all_go_on_from_the_checkpoint(reference, tmp_path):
    folder = tmp_path / "train"
    options = {"folder": str(folder), "checkpoint_every": EVERY}
    for lost, step in ((0, 12), (1, 27)):
        go = tmp_path / f"go{lost}"
        with two_workers({**options, "pause": [step, str(go)]}) as workers:
            read_to(workers[0], step)
            workers[lost].send_signal(signal.SIGKILL)
            go.touch()
            left = workers[1 - lost]
            message = lines(left)[-1]
        assert left.returncode == 2
        assert message.startswith("error: training: another worker is gone at step ")
        assert str(folder) in message
    with two_workers(options) as (chief, other):
        found = json.loads(lines(chief)[-1])
        lines(other)
    assert found["resumed_from"] == 25
    same_as_one_process(found, reference)


def test_a_port_that_is_in_use_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with started({"strategy": "multi-worker"}, ([taken.getsockname()[1], *free_ports(1)], 0)) as process:
            found = lines(process)
    assert process.returncode == 2
    assert found[-1].startswith("error: strategy multi-worker: worker 0 needs the port of 127.0.0.1:")


@pytest.mark.parametrize("index", [0, 1])
def test_workers_that_do_not_come_are_waited_for_so_long(index):
    with started({"strategy": "multi-worker", "timeout": 1}, (free_ports(2), index)) as process:
        found = lines(process)
    assert process.returncode == 2
    assert found[-1].startswith("error: strategy multi-worker: all workers of TF_CONFIG are expected within 1 seconds. Received: ")
