"""Damaged files by the hundred: each one is read by a command in a process that may die without taking the tests along.

    python reader_fuzz.py WHOLE_FILE SEED FIRST COUNT WORD...

The words are a command line in which `{bad}` is the damaged file and `{out}` a file or folder that does not exist. For each of
the cases FIRST .. FIRST + COUNT - 1 a line is printed before it is begun and a line of JSON when it is done.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 20
"""Longest time for one file; they take milliseconds."""

MEMORY = 3 << 30
"""Bytes by which a process may grow over what its libraries need."""


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged file; `status` is None where the process died or hung."""

    case: int
    status: int | None
    error: str

    @property
    def fine(self) -> bool:
        """Success, a clear no, or one line that refuses: never a traceback, a crash, a hang or a defect of ours."""
        *warnings, last = self.error.splitlines() or [""]
        refused = last.startswith("tqt-onnx: error: ") and "a defect of tqt-onnx" not in last
        if any(line.startswith(("Traceback", "tqt-onnx")) for line in warnings):
            return False
        return self.status in (0, 1) or (self.status == 2 and refused)


def damage(whole: bytes, seed: int, case: int) -> bytes:
    """Flipped bits, bytes overwritten, pieces cut out or doubled, or the end missing; the same for the same numbers."""
    rng = random.Random(f"{seed}/{case}")
    data = bytearray(whole)
    kind = rng.choice(["bits", "bits", "bits", "bytes", "numbers", "cut", "double", "end"])
    if kind == "bits":
        for _ in range(rng.choice([1, 1, 2, 4, 16])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        start = rng.randrange(len(data))
        data[start : start + 8] = rng.randbytes(len(data[start : start + 8]))
    elif kind == "numbers":  # lengths and counts that promise too much
        start = rng.randrange(len(data))
        data[start : start + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x80\x80\x80"])
    elif kind == "end":
        del data[rng.randrange(len(data)) :]
    else:
        start = rng.randrange(len(data))
        piece = data[start : start + rng.randrange(1, 64)]
        data[start : start + len(piece)] = b"" if kind == "cut" else bytes(piece) * 2
    return bytes(data)


def damage_fields(message: Any, seed: int, case: int) -> bytes:
    """One to three fields of a protobuf message changed: the file stays readable, and what it says becomes wrong."""
    rng = random.Random(f"{seed}/{case}/fields")
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = []
        waiting = [message]
        while waiting:
            current = waiting.pop()
            for field, value in current.ListFields():
                places.append((current, field))
                if field.type == field.TYPE_MESSAGE:
                    several = (
                        list(value.values()) if hasattr(value, "values") else value if isinstance(value, Sequence) else [value]
                    )
                    waiting.extend(inner for inner in several if hasattr(inner, "ListFields"))
        texts = sorted({getattr(at, field.name) for at, field in places if isinstance(getattr(at, field.name), str)})
        _change(*rng.choice(places), texts, rng)
    return bytes(message.SerializeToString())


def _change(message: Any, field: Any, texts: Sequence[str], rng: random.Random) -> None:
    value = getattr(message, field.name)
    if not isinstance(value, (str, bytes, int, float)):
        if not hasattr(value, "append") and not hasattr(value, "add"):
            message.ClearField(field.name)
            return
        index = rng.randrange(len(value))
        scalar = not hasattr(value[index], "ListFields")
        if rng.random() < 0.3:
            del value[index]
        elif rng.random() < 0.5 and scalar:
            value[index] = _other(value[index], texts, rng)
        elif scalar:
            value.append(value[index])
        else:
            value.add().CopyFrom(value[index])
        return
    with contextlib.suppress(ValueError, TypeError):  # an enumeration, or out of the field's range
        setattr(message, field.name, _other(value, texts, rng))


def _other(value: Any, texts: Sequence[str], rng: random.Random) -> Any:
    if isinstance(value, str):
        return rng.choice([*texts, *texts, "", "\u2603", "../x", value * 2])
    if isinstance(value, bytes):
        return rng.choice([b"", value[: len(value) // 2], value * 2, b"\xff" * len(value)])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([0, 1, 2, -1, 7, 2**31 - 1, -(2**31), 2**62, value + 1, value - 1, value * 2])
    return rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-45])


def _parsed(data: bytes, suffix: str) -> Any:
    """The message in a file whose format is protobuf, else None."""
    if suffix == ".onnx":
        import onnx

        return onnx.ModelProto.FromString(data)
    if suffix == ".pb":
        import tensorflow as tf

        return tf.compat.v1.GraphDef.FromString(data)
    return None


def outcomes(whole: Path, seed: int, cases: range, command: str) -> list[Outcome]:
    """Runs the cases; behind one that kills its process the next one begins in a new process."""
    found: list[Outcome] = []
    first = cases.start
    while first < cases.stop:
        words = [sys.executable, __file__, str(whole), str(seed), str(first), str(cases.stop - first), *command.split()]
        done = subprocess.run(words, capture_output=True, text=True, check=False, errors="replace")
        begun = None
        for line in done.stdout.splitlines():
            if line.startswith("begin "):
                begun = int(line.removeprefix("begin "))
            elif line.startswith("{"):
                found.append(Outcome(**json.loads(line)))
        if len(found) == len(cases):
            break
        if begun is None or (found and found[-1].case == begun):
            raise RuntimeError(f"the process ended without a damaged file: {done.stderr[-2000:]}")
        found.append(Outcome(begun, None, f"the process ended with {done.returncode}: {done.stderr[-2000:]}"))
        first = begun + 1
    return found


def _limit_memory(more: int) -> None:
    """From what the process has mapped now; without /proc there is no limit."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _main(whole: Path, seed: int, first: int, count: int, command: list[str]) -> None:
    from tqt_onnx.cli import run

    data = whole.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        bad, out = Path(folder) / f"bad{whole.suffix}", Path(folder) / "out.onnx"
        words = [word.format(bad=bad, out=out) for word in command]
        bad.write_bytes(data)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            status = run(words)  # the whole file, which loads the libraries
        if status:
            raise SystemExit(f"the undamaged file is refused: {said.getvalue()}")
        _limit_memory(MEMORY)
        for case in range(first, first + count):
            sys.stdout.write(f"begin {case}\n")
            sys.stdout.flush()
            if out.is_dir():
                shutil.rmtree(out)
            out.unlink(missing_ok=True)
            message = _parsed(data, whole.suffix) if case % 2 else None
            bad.write_bytes(damage(data, seed, case) if message is None else damage_fields(message, seed, case))
            signal.alarm(SECONDS)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                status = run(words)
            signal.alarm(0)
            left = {path.name for path in Path(folder).iterdir()} - {bad.name} - ({out.name} if status == 0 else set())
            error = said.getvalue() if not left else f"files left behind: {sorted(left)}"
            sys.stdout.write(json.dumps({"case": case, "status": status if not left else None, "error": error}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
