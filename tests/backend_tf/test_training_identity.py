"""What makes a training this one and no other; and a training that ends because nothing gets better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import Batches, network, weights_digest

from tqt_onnx.backend_tf import RegeneratedModel, regenerate
from tqt_onnx.backend_tf.training import Schedule, TrainingResult, train
from tqt_onnx.ir import UsageError

FEW = Schedule(batch=8, steps=2)
HOPELESS = Schedule(batch=8, steps=12, weight_lr=1e-12, threshold_lr=1e-12, freezing=False, validate_every=1, patience=3)
"""Too slow to change an integer: no step is better than the beginning."""


def model(momentum: float = 0.99) -> RegeneratedModel:
    return regenerate(*network(), batch_norm_momentum=momentum)


def selection(seed: int = 7) -> Any:
    return lambda: [Batches(seed=seed).batch(0)]


def run(net: RegeneratedModel, folder: Path | None = None, schedule: Schedule = FEW, **options: Any) -> TrainingResult:
    return train(net, Batches(), schedule=schedule, folder=folder, **{"select": selection(), **options})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"select": selection(8)}, "another first batch of the selection data"),
        ({"select": None}, "another first batch of the selection data"),
        ({"keep": "last"}, "another keep; .* Received: last instead of best"),
        ({"identity": {"label offset": 1, "selection data": None}}, "another label offset; .* Received: 1 instead of 0"),
        (
            {"identity": {"label offset": 0, "selection data": {"count": 2, "names": "b" * 64}}},
            "another selection data; .* Received: count 2, names bbbbbbbbbbbb instead of none",
        ),
        (
            {"identity": {"label offset": 0, "selection data": {"of": "flip,crop=0.08"}}},
            "another selection data; .* Received: of flip,crop=0.08 instead of none",
        ),
    ],
)
def test_a_checkpoint_of_another_selection(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    known = {"identity": {"label offset": 0, "selection data": None}}
    run(model(), tmp_path, **known)
    with pytest.raises(UsageError, match=f"the checkpoint belongs to {says}"):
        run(model(), tmp_path, **{**known, **options})
    assert run(model(), tmp_path, **known).resumed_from == 2


def test_a_checkpoint_of_another_momentum(tmp_path: Path) -> None:
    run(model(), tmp_path)
    with pytest.raises(UsageError, match=r"another batch norm momentum; .* Received: 0\.5 instead of 0\.99"):
        run(model(0.5), tmp_path)


def test_patience_ends_a_training_without_improvement(tmp_path: Path) -> None:
    result = run(model(), tmp_path, HOPELESS)
    assert (result.steps, result.total, result.kept) == (3, 12, 0)
    assert [row.step for row in result.history] == [0, 1, 2, 3]
    assert result.ended_by == "3 validations without improvement" and not result.interrupted
    again = run(model(), tmp_path, HOPELESS)
    assert (again.steps, again.resumed_from, again.ended_by) == (3, 3, result.ended_by)
    with pytest.raises(UsageError, match=r"another schedule; .* Received: patience 4 instead of 3"):
        run(model(), tmp_path, replace(HOPELESS, patience=4))


def test_a_training_that_was_interrupted_is_as_patient(tmp_path: Path) -> None:
    class Stop:
        def on_step(self, step: int, total: int, scalars: object) -> None:
            if step == 2:
                raise KeyboardInterrupt

        def on_validation(self, row: object) -> None: ...
        def on_freeze(self, step: int, group: str, log2_t: float) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        run(model(), tmp_path, HOPELESS, checkpoint_every=1, listener=Stop())
    net, whole = model(), model()
    found, expected = run(net, tmp_path, HOPELESS), run(whole, None, HOPELESS)
    assert found.resumed_from == 1
    assert (found.steps, found.ended_by, found.history) == (expected.steps, expected.ended_by, expected.history)
    assert weights_digest(net) == weights_digest(whole)


def test_validations_in_front_of_the_quantizers_do_not_count() -> None:
    late = replace(HOPELESS, quant_delay=6)
    result = run(model(), None, late)
    assert result.steps == 9
    assert result.ended_by == "3 validations without improvement"


def test_who_gets_better_goes_on() -> None:
    better = replace(HOPELESS, weight_lr=1e-2, steps=6, patience=1)
    own = Batches()  # what is trained on: it gets better with every step
    result = run(model(), None, better, mode="float", select=lambda: [own.batch(step) for step in range(6)])
    assert result.kept > 1
    assert (result.steps == 6) == (result.ended_by is None)
    assert run(model(), None, replace(HOPELESS, patience=None)).ended_by is None


@pytest.mark.parametrize("patience", [0, -1, float("nan")])
def test_patience_is_a_number_of_validations(patience: Any) -> None:
    with pytest.raises(UsageError, match="patience must be a"):
        Schedule(patience=patience)


def test_patience_wants_selection_data_and_one_process() -> None:
    from tqt_onnx.backend_tf.training import check_keep

    with pytest.raises(UsageError, match=r"patience needs data to select by.* Received: 3 and none"):
        run(model(), None, HOPELESS, select=None)
    with pytest.raises(UsageError, match="patience is for one process"):
        check_keep("best", HOPELESS, selects=True, processes=True)
    assert (check_keep(None, FEW, selects=True), check_keep(None, FEW, selects=False)) == ("best", "last")


@pytest.mark.parametrize(
    ("weight", "says"),
    [("conv/b", "the bias of "), ("conv/w", "the weights of "), ("dense/b", "the bias of "), ("dense/w", "the weights of ")],
)
def test_what_blew_up_is_named_by_its_layer(weight: str, says: str) -> None:
    from tqt_onnx.backend_tf.training.blame import first_not_finite

    net = model()
    variable = next(one for one in net.variables if net.true_names[one.name] == weight and len(one.shape))
    variable.assign(np.full(variable.shape, np.nan, np.float32))
    op = {"conv": "Conv", "dense": "Gemm"}[weight.partition("/")[0]]
    layer = next(step.name for step in net.program.steps if step.op == op)
    assert first_not_finite(net, [Batches().batch(0)[0]], net.threshold_vector(), True) == f"{says}{layer!r}"
