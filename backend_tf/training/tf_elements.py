"""What the elements of a `tf.data` pipeline are: examples or batches, with or without labels, told by their specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import DataError

_EXPECTED: Final = (
    "elements (x, y) or x are expected, x a tensor or a dictionary of tensors by input name, y a whole number for each example "
    "(tf.argmax makes it of one-hot labels)"
)


class Elements:
    """Reads the elements of one pipeline.

    Attributes:
        batched: whether an element is a batch.
        batch_size: of a batch where the specification fixes it.
        labelled: whether there are labels.
    """

    def __init__(self, spec: Any, inputs: Mapping[str, Sequence[int | None]]) -> None:
        """Compares the specification with the network.

        Args:
            spec: `dataset.element_spec`.
            inputs: shape of one example by input name.

        Raises:
            DataError: the elements do not fit.
        """
        self._inputs = dict(inputs)
        x, labels = _parts(spec)
        specs = self._by_name(x)
        extra = {_extra(name, found, self._inputs[name]) for name, found in specs.items()}
        self.batched = extra == {1}
        self.labelled = labels is not None
        if len(extra) != 1 or (self.labelled and not _fits(labels, self.batched)):
            raise DataError(f"the tf.data pipeline: {_EXPECTED}, all single or all in batches. Received: {spec}")
        first = next(iter(specs.values()))
        self.batch_size: int | None = first.shape[0] if self.batched else None

    def size(self, element: Any) -> int:
        """Examples of one batch."""
        return int(tf.shape(next(iter(self._by_name(_parts(element)[0]).values())))[0])

    def arrays(self, batch: Any) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int64] | None]:
        """Feeds by input name, float32 [n, ...], and labels int64 [n], of a batch of elements."""
        x, labels = _parts(batch)
        feeds = {name: tensor.numpy().astype(np.float32) for name, tensor in self._by_name(x).items()}
        return feeds, None if labels is None else labels.numpy().astype(np.int64).reshape(-1)

    def _by_name(self, x: Any) -> dict[str, Any]:
        if not isinstance(x, Mapping):
            if len(self._inputs) != 1:
                raise DataError(
                    f"the tf.data pipeline: a dictionary of tensors for {', '.join(self._inputs)} is expected. Received: {x}"
                )
            return {next(iter(self._inputs)): x}
        if set(x) != set(self._inputs):
            raise DataError(
                f"the tf.data pipeline: tensors for {', '.join(self._inputs)} are expected. Received: {', '.join(map(str, x))}"
            )
        return {name: x[name] for name in self._inputs}


def _parts(element: Any) -> tuple[Any, Any]:
    """(x, y or None)."""
    if not isinstance(element, tuple):
        return element, None
    if len(element) not in (1, 2):
        raise DataError(f"the tf.data pipeline: {_EXPECTED}. Received: tuples of {len(element)}")
    return element[0], element[1] if len(element) == 2 else None


def _extra(name: str, spec: Any, shape: Sequence[int | None]) -> int:
    """1 where there is a dimension in front of an example's, else 0."""
    if not isinstance(spec, tf.TensorSpec) or not (spec.dtype.is_floating or spec.dtype.is_integer):
        raise DataError(f"the tf.data pipeline: a dense tensor of numbers is expected for {name!r}. Received: {spec}")
    rank = spec.shape.rank
    if rank is None:
        raise DataError(
            f"the tf.data pipeline: a tensor of known rank is expected for {name!r} (tf.ensure_shape tells it). Received: {spec}"
        )
    extra = rank - len(shape)
    if extra not in (0, 1) or not spec.shape[extra:].is_compatible_with(list(shape)):
        wanted = ", ".join("?" if size is None else str(size) for size in shape)
        raise DataError(
            f"the tf.data pipeline: examples [{wanted}] or batches [n, {wanted}] are expected for {name!r}. Received: {spec.shape}"
        )
    return int(extra)


def _fits(labels: Any, batched: bool) -> bool:
    """Whether these are labels `[]` or `[1]` of single examples, `[n]` or `[n, 1]` of batches."""
    if not isinstance(labels, tf.TensorSpec) or not labels.dtype.is_integer or labels.shape.rank is None:
        return False
    return list(labels.shape[batched:]) in ([], [1]) and labels.shape.rank >= batched
