"""The table of rooms is kept, nothing heavy is loaded before it is used, and literals that are written twice agree."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]

ROOMS = {
    "ir": set(),
    "kernels": set(),
    "frontend_tf": {"ir"},
    "frontend_onnx": {"ir"},
    "passes": {"ir", "kernels.fixed_point", "kernels.functions", "kernels.batch_norm"},
    "calibrate": {"ir", "kernels"},
    "backend_tf": {"ir", "kernels"},
    "verify": {"ir", "kernels"},
    "export": {"ir", "kernels.fixed_point"},
    "datasets": {"ir"},
    "report": {"ir"},
    "verbs": {
        "ir",
        "kernels",
        "frontend_tf",
        "frontend_onnx",
        "passes",
        "calibrate",
        "backend_tf",
        "verify",
        "export",
        "datasets",
        "report",
    },
    "cli": {"ir", "passes", "report", "verbs"},
}
"""Room -> what it may import of ours. The root (`__init__`, `__main__`) may import every room."""

MAY_LOAD = {
    "tensorflow": {"frontend_tf", "backend_tf", "kernels/tqt.py", "kernels/epilogue.py", "kernels/native.py"},
    "keras": {"frontend_tf", "backend_tf", "verbs/demo.py", "verbs/keras_models.py"},
    "tf2onnx": {"frontend_tf/conversion/convert.py"},
    "onnxruntime": {"calibrate", "verify"},
    "sklearn": {"datasets/digits.py"},
    "rich": {"report"},
    "click": {"cli"},
}
"""Library -> rooms or single files that may import it, also inside a function."""

NOT_CODE = {"tests", "docs", "examples", "benchmarks", "presets"}


def sources() -> list[Path]:
    return sorted(
        path
        for path in [*ROOT.glob("*.py"), *(file for folder in rooms_on_disk() for file in (ROOT / folder).rglob("*.py"))]
        if "__pycache__" not in path.parts
    )


def rooms_on_disk() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("[!._]*/__init__.py") if path.parent.name not in NOT_CODE)


def imports(path: Path) -> Iterator[str]:
    """Every module imported anywhere in a file, lazily or for types, ours as `tqt_onnx.room...`; submodules are spelled out."""
    package = path.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = ["tqt_onnx", *package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                folder = ROOT.joinpath(*module.split(".")[1:])
                is_module = module.startswith("tqt_onnx") and (
                    (folder / f"{alias.name}.py").is_file() or (folder / alias.name / "__init__.py").is_file()
                )
                yield f"{module}.{alias.name}" if is_module else module


def forbidden(path: Path) -> list[str]:
    """Imports of a file that the two tables do not allow."""
    place = path.relative_to(ROOT).as_posix()
    room = place.split("/")[0] if "/" in place else None
    found = []
    for module in imports(path):
        top, _, rest = module.partition(".")
        if top in MAY_LOAD and not MAY_LOAD[top] & {place, room}:
            found.append(module)
        if top == "tqt_onnx" and rest:
            other = rest.split(".")[0]
            allowed = ROOMS[room] if room else set(ROOMS)
            whole = other in allowed or other == room
            part = any(rest == entry or rest.startswith(f"{entry}.") for entry in allowed)
            if other == "cli":  # nobody calls the command line but its entry
                whole = room == "cli" or place == "__main__.py"
            if not (whole or part):
                found.append(module)
    return found


def test_rooms_import_only_what_the_table_allows() -> None:
    assert {str(path.relative_to(ROOT)): found for path in sources() if (found := forbidden(path))} == {}


def test_the_walk_sees_lazy_relative_and_nested_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passes" / "deep").mkdir(parents=True)
    (tmp_path / "kernels").mkdir()
    for name in ("fixed_point", "tqt"):
        (tmp_path / "kernels" / f"{name}.py").touch()
    file = tmp_path / "passes" / "deep" / "one.py"
    file.write_text(
        "def f():\n    from ...verify import x\n    import tensorflow.nn\n    from ... import cli\n"
        "from ...kernels import fixed_point, tqt\nfrom ..base import y\n"
        "from ...kernels.fixed_point import z\nfrom ... import __version__\n"
    )
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__init__.py").touch()
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert sorted(forbidden(file)) == ["tensorflow.nn", "tqt_onnx.cli", "tqt_onnx.kernels.tqt", "tqt_onnx.verify"]


def test_every_room_is_in_the_table() -> None:
    assert set(rooms_on_disk()) <= set(ROOMS)
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_the_package_list_equals_the_disk() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    folders = {path.parent for room in rooms_on_disk() for path in (ROOT / room).rglob("__init__.py")}
    on_disk = {"tqt_onnx", *(".".join(["tqt_onnx", *folder.relative_to(ROOT).parts]) for folder in folders)}
    listed = project["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == on_disk
    assert set(project["mypy"]["packages"]) == {name for name in on_disk if name.count(".") == 1}
    bare = [path for path in sources() if path.parent != ROOT and not (path.parent / "__init__.py").is_file()]
    assert bare == []  # it would not be installed


def loaded(code: str) -> set[str]:
    """Top-level modules, and ours, that a fresh process has at the end of `code`."""
    program = f"{code}\nimport sys, json\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout.splitlines()[-1])
    return {name if name.startswith("tqt_onnx") else name.partition(".")[0] for name in modules}


HEAVY = {"tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir", "onnxruntime", "numpy", "sklearn", "PIL"}


@pytest.mark.parametrize(
    "code",
    [
        "import tqt_onnx; assert tqt_onnx.__version__; dir(tqt_onnx)",
        "from tqt_onnx.cli import run; assert run(['--help']) == 0",
        "from tqt_onnx.cli import run; assert run(['quantize', '--help']) == 0",
        "from tqt_onnx.cli import run; assert run(['--version']) == 0",
        "from tqt_onnx.cli import run; assert run(['quantise']) == 2",
    ],
)
def test_import_and_help_load_nothing_heavy(code: str) -> None:
    modules = loaded(code)
    assert modules & HEAVY == set()
    assert {name.split(".")[1] for name in modules if name.count(".")} & set(ROOMS) - {"cli"} == set()


@pytest.fixture(name="files", scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a float dense network and labelled data for it."""
    folder = tmp_path_factory.mktemp("tiny")
    weights = np.array([[1, -2], [0.5, 3], [-1, 0.25]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="dense")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([0.5, -1], np.float32), "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "m.onnx")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=np.arange(8) % 2)
    return folder


def verb(files: Path, arguments: str) -> str:
    words = arguments.format(f=files.as_posix()).split()
    return f"from tqt_onnx.cli import run; assert run({words!r}) == 0"


def test_verbs_on_onnx_files_load_no_tensorflow_unless_it_is_an_engine(files: Path) -> None:
    roads = {
        "quantize": "quantize {f}/m.onnx -o {f}/q.onnx --force --calibration {f}/data.npz",
        "check": "check {f}/q.onnx --data {f}/data.npz",
        "evaluate": "evaluate {f}/m.onnx {f}/q.onnx --data {f}/data.npz",
        "inspect": "inspect {f}/q.onnx",
        "convert": "convert {f}/m.onnx -o {f}/c.onnx --force",
        "passes": "passes",
    }
    for arguments in roads.values():
        assert loaded(verb(files, arguments)) & {"tensorflow", "keras", "tf2onnx", "sklearn"} == set()
    assert "tensorflow" in loaded(verb(files, roads["check"] + " --engines oracle,ort,tf"))


def test_choices_of_the_command_line_are_those_of_the_tables() -> None:
    from tqt_onnx import calibrate, datasets
    from tqt_onnx.cli import options

    assert sorted(calibrate.METHODS) == sorted(options.METHODS)
    assert sorted(calibrate.WEIGHT_METHODS) == sorted(options.WEIGHT_METHODS)
    assert sorted(datasets.PREPROCESS) == sorted(options.PREPROCESS)


def test_every_public_name_resolves() -> None:
    import tqt_onnx

    assert set(tqt_onnx._LAZY) | {"__version__"} == set(tqt_onnx.__all__)
    for name in tqt_onnx.__all__:
        assert getattr(tqt_onnx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = tqt_onnx.quantise


def test_the_installed_command_is_the_cli() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"tqt-onnx": "tqt_onnx.cli:main"}
    done = subprocess.run([sys.executable, "-m", "tqt_onnx", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == project["version"]
