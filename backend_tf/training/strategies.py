"""Strategies of `tf.distribute` by name, and what is asked of the machine before TensorFlow is."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from ...ir import UsageError
from .errors import WorkerLostError

logger = logging.getLogger(__name__)

STRATEGIES: Final = ("none", "mirrored", "multi-worker")

TIMEOUT: Final = 600.0
"""Seconds in which all workers must be there."""

_POLL: Final = 0.2

LOST: Final = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
)
"""What TensorFlow raises when another worker is gone."""

_TF_CONFIG: Final = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def make_strategy(name: str, devices: Sequence[str] | None = None, timeout: float = TIMEOUT) -> tf.distribute.Strategy:
    """The strategy with this name.

    A multi-worker one must be made before TensorFlow runs anything, and waits until every worker of `TF_CONFIG` is there.

    Args:
        name: none (one device), mirrored (several devices of this machine) or multi-worker (several machines, `TF_CONFIG`).
        devices: logical devices of a mirrored strategy, `GPU:0` for example; by default all GPUs, without any all logical CPUs.
        timeout: seconds to wait for the other workers.

    Raises:
        UsageError: an unknown name, devices that are not there, `TF_CONFIG` missing or malformed, hosts that are not known, a port
            that is in use, workers that do not come, or TensorFlow used before.
    """
    if name not in STRATEGIES:
        raise UsageError(f"the strategy must be one of {', '.join(STRATEGIES)}. Received: {name!r}")
    if devices is not None and name != "mirrored":
        raise UsageError(f"devices belong to the strategy mirrored. Received: {name!r} with {list(devices)}")
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_devices(devices))
    workers, index = _check_tf_config(os.environ.get("TF_CONFIG"))
    _check_hosts(workers)
    logger.warning("waiting for %d workers, %.0f seconds at most: %s", len(workers), timeout, ", ".join(workers))
    late = UsageError(
        f"strategy multi-worker: all workers of TF_CONFIG are expected within {timeout:.0f} seconds. "
        f"Received: not all of {', '.join(workers)}"
    )
    if _tensorflow_runs():
        pass  # too late, as the strategy will say
    elif reason := _port_in_use(workers[index]):
        raise UsageError(f"strategy multi-worker: worker {index} needs the port of {workers[index]} for itself. Received: {reason}")
    elif index:
        _limit_wait(len(workers), timeout)
    elif not _all_listen(workers[1:], timeout):
        raise late
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.DeadlineExceededError, tf.errors.UnavailableError) as error:
        raise late from error
    except tf.errors.OpError as error:
        raise UsageError(
            f"strategy multi-worker: worker {index} needs the port of {workers[index]} for itself. "
            f"Received: {str(error.message).splitlines()[0]}"
        ) from error
    except RuntimeError as error:
        raise UsageError(
            f"strategy multi-worker: it must be made before TensorFlow runs anything. Received: {str(error).splitlines()[0]}"
        ) from error


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes files: the only one, or worker 0."""
    resolver = strategy.cluster_resolver
    return not is_multi_worker(strategy) or resolver is None or int(resolver.task_id or 0) == 0


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes take part."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def own_parts(strategy: tf.distribute.Strategy) -> tuple[int, ...]:
    """Which replicas are in this process."""
    if strategy.num_replicas_in_sync == 1:
        return (0,)
    own: list[int] = []

    def note(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        own.append(int(context.replica_id_in_sync_group))
        return tf.zeros([])

    strategy.experimental_distribute_values_from_function(note)
    return tuple(own)


def check_agreement(strategy: tf.distribute.Strategy, step: int) -> None:
    """Refuses to train with workers that go on from different steps.

    Raises:
        UsageError: this process is at another step than others.
    """
    if not is_multi_worker(strategy):
        return

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def sums() -> tf.Tensor:
        own = strategy.run(lambda: tf.constant([step, step * step], tf.float64))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, own, axis=None)

    first, second = sums().numpy()
    if first * first != second * strategy.num_replicas_in_sync:  # equal only where all steps are (Cauchy-Schwarz)
        raise UsageError(
            "strategy multi-worker: all workers must go on from the same checkpoint; a folder that all of them see is expected. "
            f"Received: step {step} here, another one elsewhere"
        )


@contextmanager
def worker_loss(strategy: tf.distribute.Strategy, folder: Path | None, step: Callable[[], int]) -> Iterator[None]:
    """Within its block the loss of another worker is one line.

    Args:
        strategy: whose workers they are; any other than multi-worker changes nothing.
        folder: of the training, or None.
        step: how many steps are done.

    Raises:
        WorkerLostError: another worker is gone.
    """
    try:
        yield
    except LOST as error:
        if not is_multi_worker(strategy):
            raise
        again = "start all workers anew" + ("" if folder is None else f" with the same folder, {folder}, and they go on")
        raise WorkerLostError(
            f"training: another worker is gone at step {step()}; {again}. Received: {type(error).__name__}"
        ) from error


def _devices(wanted: Sequence[str] | None) -> list[str]:
    there = [str(device.name).removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if wanted is None:
        gpus = [name for name in there if name.startswith("GPU:")]
        found = gpus or [name for name in there if name.startswith("CPU:")]
    else:
        found = [name.upper().removeprefix("/DEVICE:") for name in wanted]
    missing = [name for name in found if name not in there]
    if missing or len(set(found)) != len(found) or len(found) < 2:
        raise UsageError(
            f"strategy mirrored: two or more different devices out of {', '.join(there)} are expected. "
            f"Received: {', '.join(found) or 'none'}"
        )
    return found


def _tensorflow_runs() -> bool:
    """Whether TensorFlow has run something in this process."""
    from tensorflow.python.eager import context

    return getattr(context.context(), "_context_handle", None) is not None


def _port_in_use(worker: str) -> str | None:
    """Why this process cannot serve at its own port, or None. TensorFlow would say so too, but only when all others are there."""
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(("", int(worker.rpartition(":")[2])))
        except OSError as error:
            return error.strerror
    return None


def _all_listen(workers: Sequence[str], timeout: float) -> bool:
    """Waits until all of these accept connections. TensorFlow's own wait of worker 0 has no end that could be set."""
    deadline, missing = time.monotonic() + timeout, list(workers)
    while missing:
        host, _, port = missing[0].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
            missing.pop(0)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
    return True


def _limit_wait(workers: int, timeout: float) -> None:
    """Bounds the wait of another worker for worker 0, an hour otherwise; there is no public function that does it."""
    try:
        from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
        from tensorflow.python.eager import context

        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader="/job:worker/replica:0/task:0",
            cluster_register_timeout_in_ms=int(1000 * timeout),
            coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=workers)],
        )
    except (ImportError, AttributeError, TypeError):
        logger.warning("this TensorFlow cannot be told how long to wait for workers: it waits an hour")


def _check_hosts(workers: Sequence[str]) -> None:
    for worker in workers:
        try:
            socket.getaddrinfo(worker.rpartition(":")[0].strip("[]"), None)
        except (OSError, UnicodeError) as error:
            raise UsageError(
                f"strategy multi-worker: TF_CONFIG must list hosts that are known here. Received: {worker} ({error})"
            ) from error


def _check_tf_config(text: str | None) -> tuple[list[str], int]:
    """The workers and the index of this one; refuses all that TensorFlow would otherwise ignore, crash on or wait for."""

    def refuse(why: str) -> UsageError:
        return UsageError(f"strategy multi-worker: TF_CONFIG {why}; {_TF_CONFIG} is expected. Received: {text}")

    if not text:
        raise refuse("is not set")
    try:
        config: Any = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kinds, workers, kind, index = set(cluster), cluster["worker"], task["type"], task["index"]
    except (ValueError, KeyError, TypeError) as error:
        raise refuse("cannot be read") from error
    if kinds != {"worker"} or kind != "worker":
        raise refuse("must name workers only")
    if not isinstance(workers, list) or not workers or not all(map(_is_address, workers)):
        raise refuse("must list workers as host:port")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(workers):
        raise refuse(f"must have a task index below {len(workers)}")
    return workers, index


def _is_address(text: object) -> bool:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 1 << 16
