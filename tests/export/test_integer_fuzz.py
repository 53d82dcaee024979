"""Target `integer` on random networks: the oracle's integers, or a refusal with its limit."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from integer_runs import compare
from quantized_networks import quantized_network
from random_networks import Network, networks

from tqt_onnx.ir import TqtOnnxError

COUNT = int(os.environ.get("TQT_ONNX_FUZZ", "0"))
OUTCOMES: Counter[str] = Counter()


@settings(
    max_examples=COUNT or 80,
    derandomize=not COUNT,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
@given(network=networks())
def check_network(network: Network) -> None:
    model = quantized_network(network)
    if model is None:
        OUTCOMES["not quantized"] += 1
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            source = compare(model, network.inputs, Path(folder))
        except TqtOnnxError as error:
            OUTCOMES["refused"] += 1
            OUTCOMES[str(error)] += 1
            assert any(limit in str(error) for limit in ("int32", "2^53", "62 bits", "2^62", "64 bits")), error
            return
    OUTCOMES["compared"] += 1
    for step in source.network.steps:
        OUTCOMES.update(operation.op for operation in step.operations)


def test_random_networks_give_the_oracles_integers() -> None:
    """And most are computed: a fuzzer that refuses everything proves nothing."""
    OUTCOMES.clear()
    check_network()
    assert OUTCOMES["compared"] > 0.5 * (COUNT or 80), OUTCOMES
    assert OUTCOMES["refused"] <= 0.1 * (COUNT or 80), OUTCOMES
