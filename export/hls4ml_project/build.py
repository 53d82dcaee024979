"""Builds an hls4ml project from the files beside this script and checks that it computes the model's integers.

    python build.py                                      # Vitis, io_parallel, Latency: converts, compiles with g++, compares
    python build.py --io-type io_stream --strategy Resource --reuse-factor 16
    python build.py --synthesize                         # then runs Vitis HLS

It needs hls4ml 1.3 with onnx, and g++. Precisions are no choice: they are those of the model, and what it computes depends on them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Returns 1 where an output differs from the golden one."""
    arguments = parse()
    config = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
    if arguments.io_type == "io_stream" and config["parallel_only"]:
        layers = "; ".join(f"{layer}: {why}" for layer, why in config["parallel_only"].items())
        sys.exit(f"hls4ml cannot stream this network, only --io-type io_parallel: {layers}")
    project = convert(config, arguments)
    if arguments.no_compile:
        project.write()
        return 0
    project.compile()
    different = compare(project, config) if (HERE / "golden.npz").is_file() else 0
    if arguments.synthesize and not different:
        project.build(csim=False)
    return int(different > 0)


def parse() -> argparse.Namespace:
    """What the user chooses."""
    parser = argparse.ArgumentParser(description="Builds an hls4ml project from the files beside this script.")
    parser.add_argument("--backend", default="Vitis", choices=["Vitis", "Vivado"])
    parser.add_argument("--io-type", default="io_parallel", choices=["io_parallel", "io_stream"])
    parser.add_argument("--strategy", default="Latency", choices=["Latency", "Resource"])
    parser.add_argument("--reuse-factor", type=int, default=1)
    parser.add_argument("--part", help="FPGA part; hls4ml's default where it is not given")
    parser.add_argument("--clock-period", type=float, default=5, help="nanoseconds")
    parser.add_argument("--output", type=Path, default=HERE / "project", help="folder of the project")
    parser.add_argument("--no-compile", action="store_true", help="write the project only")
    parser.add_argument("--synthesize", action="store_true", help="run the vendor's synthesis behind the comparison")
    return parser.parse_args()


def convert(config: dict[str, Any], arguments: argparse.Namespace) -> Any:
    """The network in hls4ml, with the precisions of `config.json`."""
    hls4ml, onnx = importlib.import_module("hls4ml"), importlib.import_module("onnx")
    model = onnx.load(HERE / config["model"])
    settings = hls4ml.utils.config_from_onnx_model(
        model, granularity="name", backend=arguments.backend, default_reuse_factor=arguments.reuse_factor
    )
    settings["Model"]["Strategy"] = arguments.strategy
    for given in config["inputs"]:
        settings["LayerName"][given["layer"]]["Precision"] = {"result": given["type"]}
    for layer, types in config["precisions"].items():
        settings["LayerName"][layer].setdefault("Precision", {}).update(types)
    for layer in config["latency_only"]:
        settings["LayerName"][layer]["Strategy"] = "Latency"
    return hls4ml.converters.convert_from_onnx_model(
        model,
        output_dir=str(arguments.output),
        project_name="network",
        backend=arguments.backend,
        hls_config=settings,
        io_type=arguments.io_type,
        part=arguments.part,
        clock_period=arguments.clock_period,
    )


def outputs_in_order(config: dict[str, Any]) -> list[str]:
    """Names of the outputs in the order in which hls4ml has them: that of the nodes that compute them."""
    model = importlib.import_module("onnx").load(HERE / config["model"])
    names = {output["name"] for output in config["outputs"]}
    return [value for node in model.graph.node for value in node.output if value in names]


def compare(project: Any, config: dict[str, Any]) -> int:
    """How many outputs of the compiled project differ from the golden ones."""
    with np.load(HERE / "golden.npz") as golden:
        inputs = [np.ascontiguousarray(golden[f"input:{given['name']}"]) for given in config["inputs"]]
        expected = {name: golden[f"output:{name}"] for name in outputs_in_order(config)}
    found = project.predict(inputs[0] if len(inputs) == 1 else inputs)
    arrays = found if isinstance(found, list) else [found]
    total = 0
    for (name, wanted), got in zip(expected.items(), arrays, strict=True):
        count = int((np.reshape(got, wanted.shape) != wanted).sum())
        sys.stdout.write(f"{name}: {count} of {wanted.size} outputs differ, {len(wanted)} examples\n")
        total += count
    return total


if __name__ == "__main__":
    sys.exit(main())
