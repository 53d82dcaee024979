"""Any network goes through tuning: random ones of every operator, odd scales, one to three images, both contracts, INT4."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import HealthCheck, given, settings
from random_networks import Network, networks

from tqt_onnx.ir import TqtOnnxError
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.preparation import calibrate_prepared, decide_trained, prepare
from tqt_onnx.verbs.quantize import finish
from tqt_onnx.verbs.tune import tune


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(network=networks())
def test_random_networks_are_tuned_or_left_as_they_are(network: Network) -> None:
    bits = BitWidths(
        layer=network.layer_bits,
        weight=network.weight_bits,
        activation=network.activation_bits,
        relu=network.relu_bits,
        unsigned_input=network.unsigned_input,
    )
    try:
        prepared = prepare(network.model, network.inputs, bits=bits)
        static = calibrate_prepared(prepared)
        finish(prepared, static)
    except TqtOnnxError:
        return  # what static mode refuses is not tuned
    tuned = tune(prepared.model, prepared.graph, prepared.feeds, static.log2_thresholds, given=prepared.given)
    assert tuned.log2_thresholds.keys() == static.log2_thresholds.keys()
    assert all(math.isfinite(log2_t) for log2_t in tuned.log2_thresholds.values())
    assert all(np.isfinite(value.const_value.numpy()).all() for value in tuned.model.graph.initializers.values())
    assert all(row.error_after <= row.error_before for row in tuned.report.layers)
    if tuned.report.kept == "tuned":
        assert tuned.report.after.better_than(tuned.report.before)
    tuned_network = type(prepared)(tuned.model, prepared.graph, prepared.feeder, prepared.widths, prepared.given)
    finish(tuned_network, decide_trained(tuned_network.model, tuned_network.graph, tuned.log2_thresholds))
