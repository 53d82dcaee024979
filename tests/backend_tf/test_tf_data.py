"""Pipelines of `tf.data` as training data: full batches in their order, told by their specification, resumable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.backend_tf.training.data import fingerprint
from tqt_onnx.backend_tf.training.tf_data import FromTfData
from tqt_onnx.ir import DataError, UsageError

INPUTS = {"x": (2,)}


def numbered(count: int = 10) -> tf.data.Dataset:
    """Examples that hold their number, labelled by it."""
    x = np.repeat(np.arange(count, dtype=np.int32)[:, None], 2, 1)
    return tf.data.Dataset.from_tensor_slices((x, np.arange(count)))


def rows(data: FromTfData, step: int, part: int = 0, parts: int = 1) -> list[int]:
    feeds, labels = data.batch(step, part, parts)
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].shape[1:] == (2,)
    found = feeds["x"][:, 0].astype(int).tolist()
    assert labels is None or (labels.dtype == np.int64 and labels.tolist() == found)
    return found


@pytest.mark.parametrize(
    "dataset",
    [
        numbered(),
        numbered().batch(4),
        numbered().batch(3),
        numbered().batch(5, drop_remainder=True),
        numbered().batch(1, drop_remainder=True),
        numbered().map(lambda x, y: ({"x": x}, y[None])),
        numbered().batch(5).map(lambda x, y: ({"x": tf.cast(x, tf.float64)}, tf.cast(y[:, None], tf.uint8))),
    ],
)
def test_batches_are_full_and_nothing_is_dropped(dataset: tf.data.Dataset) -> None:
    data = FromTfData(dataset, INPUTS, 4)
    assert (data.batch_size, data.labelled, data.steps_per_epoch) == (4, True, 3)
    assert [row for step in range(5) for row in rows(data, step)] == list(range(10)) * 2


@pytest.mark.parametrize(("dataset", "steps"), [(numbered().batch(4), 3), (numbered().batch(5, drop_remainder=True), 2)])
def test_the_batch_size_of_the_pipeline(dataset: tf.data.Dataset, steps: int) -> None:
    data = FromTfData(dataset, INPUTS)
    assert data.steps_per_epoch == steps
    assert len(rows(data, 0)) == data.batch_size


def test_without_labels() -> None:
    for dataset in (numbered().map(lambda x, _: x), numbered().map(lambda x, _: (x,)), numbered().map(lambda x, _: {"x": x})):
        data = FromTfData(dataset, INPUTS, 4)
        assert not data.labelled
        assert data.batch(0)[1] is None


def test_several_inputs_by_name() -> None:
    dataset = numbered().map(lambda x, y: ({"b": x[:1], "a": x}, y))
    feeds, labels = FromTfData(dataset, {"a": (2,), "b": (None,)}, 4).batch(0)
    assert {name: array.shape for name, array in feeds.items()} == {"a": (4, 2), "b": (4, 1)}
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"tensors for a, c are expected. Received: "):
        FromTfData(dataset, {"a": (2,), "c": (1,)}, 4)
    with pytest.raises(DataError, match="a dictionary of tensors for a, b is expected"):
        FromTfData(numbered(), {"a": (2,), "b": (2,)}, 4)


def test_parts_and_resuming() -> None:
    dataset = numbered().shuffle(10, seed=3)
    data = FromTfData(dataset, INPUTS, 4)
    expected = [[*rows(data, step, 0, 2), *rows(data, step, 1, 2)] for step in range(8)]
    assert expected[0] != expected[5]  # shuffled anew each epoch
    resumed = FromTfData(numbered().shuffle(10, seed=3), INPUTS, 4)
    assert rows(resumed, 0) == expected[0]  # as a training looks at the first batch before it goes on
    assert [rows(resumed, step) for step in (5, 5, 6, 7)] == [expected[step] for step in (5, 5, 6, 7)]
    again = FromTfData(numbered(), INPUTS, 4)
    assert [rows(again, step) for step in (3, 0, 1)] == [[2, 3, 4, 5], [0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(UsageError, match="3 replicas can share equally"):
        data.batch(0, 0, 3)


@pytest.mark.parametrize("batched", [False, True])
def test_a_resumed_training_skips_and_gets_the_same_elements(batched: bool) -> None:
    """Across epochs, with a shuffle and random numbers that have seeds."""

    def pipeline() -> tf.data.Dataset:
        drawn = numbered().shuffle(10, seed=3).map(lambda x, y: (tf.cast(x, tf.float32) + tf.random.uniform([], 0, 0.5, seed=5), y))
        return drawn.batch(5) if batched else drawn

    tf.random.set_seed(0)
    whole = FromTfData(pipeline(), INPUTS, 4)
    expected = [whole.batch(step)[0]["x"].tolist() for step in range(8)]
    tf.random.set_seed(0)
    resumed = FromTfData(pipeline(), INPUTS, 4)
    assert resumed.fingerprint() == whole.fingerprint()
    assert [resumed.batch(step)[0]["x"].tolist() for step in (5, 6, 7)] == expected[5:]


def test_a_pipeline_in_another_order_each_time_is_the_same_training() -> None:
    """Elements are not looked at, only what they are."""
    assert fingerprint(FromTfData(numbered().shuffle(10), INPUTS, 4)) == fingerprint(FromTfData(numbered(), INPUTS, 4))
    others = (
        FromTfData(numbered(11), INPUTS, 4),
        FromTfData(numbered(), INPUTS, 5),
        FromTfData(numbered(), INPUTS, 4, label_offset=1),
    )
    assert len({fingerprint(data) for data in (FromTfData(numbered(), INPUTS, 4), *others)}) == 4


def test_lengths_that_are_not_known() -> None:
    for dataset, why in ((numbered().repeat(), "never ends"), (numbered().filter(lambda *_: True), "does not know its length")):
        with pytest.raises(UsageError, match=f"{why}: steps_per_epoch is expected"):
            FromTfData(dataset, INPUTS, 4)
        data = FromTfData(dataset, INPUTS, 4, steps_per_epoch=2)
        assert data.steps_per_epoch == 2
        assert rows(data, 2) == [8, 9, 0, 1]


def test_too_few_examples() -> None:
    with pytest.raises(DataError, match=r"at least 11 examples, one batch, are expected. Received: 10"):
        FromTfData(numbered(), INPUTS, 11)
    with pytest.raises(DataError, match=r"a batch of 4 .* Received: none|at least 4 examples"):
        FromTfData(numbered().take(0), INPUTS, 4).batch(0)
    with pytest.raises(DataError, match=r"elements are expected. Received: none"):
        FromTfData(numbered().filter(lambda *_: False).batch(4), INPUTS, 4, steps_per_epoch=1)
    with pytest.raises(DataError, match=r"a batch of 4 .* Received: none"):
        FromTfData(numbered().filter(lambda *_: False), INPUTS, 4, steps_per_epoch=1).batch(0)
    no_size: dict[str, Any] = {}
    wrong = {
        "single examples: a batch size": no_size,
        "of at least 1 is expected. Received: 0": {"batch_size": 0},
        "steps_per_epoch of": {"batch_size": 4, "steps_per_epoch": 0},
    }
    for message, options in wrong.items():
        with pytest.raises(UsageError, match=message):
            FromTfData(numbered(), INPUTS, **options)


def ragged() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((tf.ragged.constant([[1, 2], [3]]), [0, 1]))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (numbered().map(lambda x, y: (x, y, y)), "Received: tuples of 3"),
        (numbered().map(lambda x, y: (x[:1], y)), r"examples \[2\] or batches \[n, 2\] are expected for 'x'. Received: \(1,\)"),
        (numbered().batch(2).batch(2), r"Received: \(None, None, 2\)"),
        (numbered().map(lambda x, y: (x, tf.one_hot(y, 10))), r"\(tf\.argmax makes it of one-hot labels\)"),
        (numbered().map(lambda x, y: (x, tf.cast(y, tf.float32))), "a whole number for each example"),
        (numbered().map(lambda x, y: (tf.as_string(x), y)), "a dense tensor of numbers"),
        (numbered().map(lambda x, y: (tf.py_function(lambda v: v, [x], tf.int32), y)), "a tensor of known rank"),
        (ragged(), "a dense tensor of numbers"),
        (numbered().batch(2).map(lambda x, y: (x, y[0])), "all single or all in batches"),
    ],
)
def test_elements_that_do_not_fit(dataset: tf.data.Dataset, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FromTfData(dataset, INPUTS, 2)


def test_what_goes_wrong_on_the_way() -> None:
    def failing(value: Any) -> Any:
        if value[0] == 6:
            raise ValueError("a broken image")
        return value

    broken = numbered().map(lambda x, y: (tf.ensure_shape(tf.py_function(failing, [x], tf.int32), [2]), y))
    data = FromTfData(broken, INPUTS, 4)
    assert rows(data, 0) == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"step 1 cannot be read: .*a broken image"):
        data.batch(1)
    assert rows(data, 0) == [0, 1, 2, 3]
    infinite = numbered().map(lambda x, y: (1 / tf.cast(x, tf.float32), y))
    with pytest.raises(DataError, match=r"finite numbers are expected for 'x' of step 0. Received: inf"):
        FromTfData(infinite, INPUTS, 4).batch(0)
    with pytest.raises(DataError, match=r"labels of at least 1 are expected \(label offset -1\). Received: 0 in step 0"):
        FromTfData(numbered(), INPUTS, 4, label_offset=-1).batch(0)
    _, labels = FromTfData(numbered(), INPUTS, 4, label_offset=1).batch(0)
    assert labels is not None
    assert labels.tolist() == [1, 2, 3, 4]
