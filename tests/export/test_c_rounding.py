"""The end of a step in C: shift, ties to even, saturation, with every undefined behaviour trapped, `==` the specification."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_programs import STRICT, compiler
from integer_reader import round_and_saturate

from tqt_onnx.export.c_code.rounding import Expression, helpers, rounded
from tqt_onnx.export.c_code.types import Range, literal
from tqt_onnx.kernels.fixed_point import requantize

BOUNDS = [(-128, 127), (0, 96), (-32768, 32767), (0, 65535), (-(2**31), 2**31 - 1), (3, 100), (-9, -2)]
REACHES = [100, 2**31 - 1, 2**31, 2**62 - 1, 2**62]
SHIFTS = [-40, -31, -17, -8, -1, 0, 1, 2, 7, 30, 31, 32, 61, 62, 63, 90]


def values(reach: int, shift: int) -> list[int]:
    """Both ends, around zero, ties and their neighbours, and some drawn ones."""
    rng = np.random.default_rng(abs(hash((reach, shift))))
    step = 1 << max(shift - 1, 0)
    ties = [odd * step + near for odd in (-5, -3, -2, -1, 0, 1, 2, 3, 5) for near in (-1, 0, 1)]
    drawn = rng.integers(-reach, reach, 20).tolist()
    return sorted({value for value in [-reach, 1 - reach, reach - 1, reach, *ties, *drawn] if abs(value) <= reach})


def run_cases(folder: Path, cases: list[tuple[int, int, int, int]]) -> list[list[int]]:
    """What C computes for `(reach, shift, lower, upper)`, for all `values`."""
    functions, calls = [], []
    for number, (reach, shift, lower, upper) in enumerate(cases):
        source = Expression("value", Range(-reach, reach))
        expression = rounded(source, shift, lower, upper)
        functions.append(f"static int64_t case_{number}({source.ctype} value) {{ (void)value; return {expression.text}; }}")
        numbers = ", ".join(literal(value, "int64_t") for value in values(reach, shift))
        calls.append(
            f"{{ static const int64_t given[] = {{ {numbers} }};"
            f' for (unsigned i = 0; i < sizeof given / 8; ++i) printf("%lld ", (long long)case_{number}(({source.ctype})given[i]));'
            ' puts(""); }'
        )
    body = "\n".join(functions)
    text = "\n".join(["#include <stdint.h>", "#include <stdio.h>", *helpers(body), body, "int main(void) {", *calls, "return 0; }"])
    (folder / "cases.c").write_text(text)
    flags = [*STRICT, "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    subprocess.run([compiler(), *flags, "-o", folder / "cases", folder / "cases.c"], check=True)
    done = subprocess.run([folder / "cases"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [[int(number) for number in line.split()] for line in done.stdout.splitlines()]


def test_every_shift_type_and_bound(tmp_path: Path) -> None:
    cases = [(reach, shift, lower, upper) for reach in REACHES for shift in SHIFTS for lower, upper in BOUNDS]
    found = run_cases(tmp_path, cases)
    assert len(found) == len(cases)
    for (reach, shift, lower, upper), integers in zip(cases, found, strict=True):
        expected = round_and_saturate(np.array(values(reach, shift), np.int64), shift, lower, upper)
        assert integers == expected.tolist(), (reach, shift, lower, upper)


def test_it_is_the_specification_of_the_package(tmp_path: Path) -> None:
    cases = [(2**40, shift, -128, 127) for shift in SHIFTS] + [(2**30, shift, 0, 192) for shift in SHIFTS]
    for (reach, shift, lower, upper), integers in zip(cases, run_cases(tmp_path, cases), strict=True):
        given = np.array(values(reach, shift), np.int64)
        assert integers == requantize(given, 0, shift, 8, lower < 0, None if lower < 0 else upper).tolist(), (reach, shift)


@pytest.mark.parametrize("mutant", ["rest >= half", "(below & 1) == 0", "half = (int32_t)1 << shift"])
def test_another_rounding_is_seen(tmp_path: Path, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases above hold ties of either parity and sign, so that no other rounding passes."""
    from tqt_onnx.export.c_code import rounding as c_rounding

    text = c_rounding._HELPERS["shift_half_even"]
    original = {"rest >= half": "rest > half", "(below & 1) == 0": "(below & 1) != 0"}.get(
        mutant, "half = (int@_t)1 << (shift - 1)"
    )
    assert original in text
    changed = text.replace(original, mutant.replace("int32_t", "int@_t"))
    monkeypatch.setattr(c_rounding, "_HELPERS", {**c_rounding._HELPERS, "shift_half_even": changed})
    cases = [(2**20, 4, -128, 127)]
    expected = round_and_saturate(np.array(values(2**20, 4), np.int64), 4, -128, 127)
    assert run_cases(tmp_path, cases)[0] != expected.tolist()
