"""KL-J: does comparing the distance at one edge an octave decide the exponents of the search over all bin edges? And what if not?

    TQT_ONNX_DATA=../shared/data python benchmarks/klj_exponents.py resnet8 mobilenet25

For every activation tensor of a network, on the histogram that the calibration sees: the exponent of the search, and of the
smallest distance among the octaves' last edges (`kernels.klj.klj_octave_edges`). Time is that of the decisions alone: the search
bin by bin, the search as it is (prefix sums first), the short cut. Then the network is calibrated with either (activations of 8
bits, weights in float, so that nothing else matters) and its logits are compared with the float network's.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import calibration_methods as methods
from calibration_methods import Counts, Logits, Network

from tqt_onnx.calibrate import METHODS
from tqt_onnx.kernels.fixed_point import ceil_log2, log2_threshold
from tqt_onnx.kernels.histogram import MagnitudeHistogram
from tqt_onnx.kernels.klj import Distances, klj_edge, klj_log2, klj_octave_edges, threshold_at
from tqt_onnx.passes import BitWidths

SHORT: Final = "klj octave ends"
VARIANT: Final = "A8 layer16"
NETWORKS: Final = methods.NETWORKS | {
    "yolov2": Network("models/yolov2_mobilenet_voc20.pb", "images/voc", 12, "images/voc", "unit", None)
}


def octave_log2(histogram: MagnitudeHistogram, bits: int, signed: bool) -> float:
    """`log2 t` of the short cut."""
    if histogram.maximum <= 0:
        return klj_log2(histogram, bits, signed)
    ends = klj_octave_edges(histogram, bits, signed)
    edge = Distances(histogram.counts, 1 << (bits - int(signed))).best(ends) if ends else histogram.counts.size
    return log2_threshold(threshold_at(edge, histogram))


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    default = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of models and images (TQT_ONNX_DATA)")
    parser.add_argument("--limit", type=int, default=1000, help="evaluate on at most so many images")
    parser.add_argument("--json", type=Path, help="write everything here")
    arguments = parser.parse_args()
    METHODS[SHORT] = replace(METHODS["klj"], decide=lambda seen, bits, signed, _: octave_log2(seen, bits, signed))
    methods.METHODS[SHORT] = {"method": SHORT}
    print("| network | tensors | same | short cut one lower | higher | search bin by bin, s | search, s | short cut, s", end="")
    print(" | SQNR search, dB | SQNR short cut | top-1 search | top-1 short cut |")
    print("|---" * 12 + "|")
    rows = [row(name, arguments) for name in arguments.networks]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1))


def row(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One network: measured, printed, returned."""
    network = NETWORKS[name]
    source, calibration, evaluation = methods.opened(network, 0, arguments)
    images = calibration.array()
    recorded: list[tuple[MagnitudeHistogram, int, bool]] = []

    def record(seen: MagnitudeHistogram, bits: int, signed: bool, _: float) -> float:
        recorded.append((seen, bits, signed))
        return klj_log2(seen, bits, signed)

    plain = METHODS["klj"]
    METHODS["klj"] = replace(plain, decide=record)
    try:
        models = {"klj": methods.quantized(source, images, VARIANT, "klj")}
    finally:
        METHODS["klj"] = plain
    models[SHORT] = methods.quantized(source, images, VARIANT, SHORT)
    difference, seconds = compare(recorded)
    assert set(difference) <= {-1, 0, 1}, difference
    scores = evaluate(network, methods.lowered(source, BitWidths(layer=32)), models, evaluation)
    found = {"network": Path(network.model).name, "tensors": len(recorded), "seconds": seconds, "scores": scores}
    found |= {"same": difference[0], "lower": difference[-1], "higher": difference[1]}
    cells = [found["network"], len(recorded), difference[0], difference[-1], difference[1]]
    cells += [f"{seconds[key]:.2f}" for key in ("bin by bin", "search", "short")]
    for key, digits in (("sqnr", 1), ("top1", 4)):
        cells += ["-" if scores[m][key] is None else f"{scores[m][key]:.{digits}f}" for m in models]
    print("|", " | ".join(map(str, cells)), "|", flush=True)
    return found


def compare(recorded: list[tuple[MagnitudeHistogram, int, bool]]) -> tuple[Counter[int], dict[str, float]]:
    """Exponents (short cut minus search) and seconds of the three ways to decide."""
    seconds = Counter[str]()
    difference = Counter[int]()

    def timed(what: str, decide: Any) -> Any:
        began = time.perf_counter()
        result = decide()
        seconds[what] += time.perf_counter() - began
        return result

    for histogram, bits, signed in recorded:
        points = 1 << (bits - int(signed))
        if histogram.maximum <= 0:
            difference[0] += 1
            continue
        distances = Distances(histogram.counts, points)
        slow = timed("bin by bin", lambda d=distances, h=histogram: d.best(d.edges.tolist()) if d.edges.size else h.counts.size)
        edge = timed("search", lambda h=histogram, p=points: klj_edge(h.counts, p))
        assert slow == edge, (slow, edge)
        short = timed("short", lambda h=histogram, b=bits, s=signed: octave_log2(h, b, s))
        difference[round(-(-short // 1)) - ceil_log2(threshold_at(edge, histogram))] += 1
    return difference, dict(seconds)


def evaluate(network: Network, reference: Any, models: dict[str, Any], evaluation: Any) -> dict[str, methods.Score]:
    """Scores of the two calibrations."""
    exact, running = Logits(reference), {name: Logits(model) for name, model in models.items()}
    counts = {name: Counts() for name in running}
    for inputs, labels in evaluation.batches(methods.BATCH):
        target = None if labels is None or network.label_offset is None else labels + network.label_offset
        wanted = exact(inputs)
        for name, logits in running.items():
            counts[name].add(wanted, logits(inputs), target)
    labelled = evaluation.labels is not None and network.label_offset is not None
    return {name: count.score(labelled=labelled) for name, count in counts.items()}


if __name__ == "__main__":
    main()
