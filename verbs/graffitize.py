"""`graffitize`: a Graffitist command line, transform by transform, on this project's road.

    fix_input_shape fold_batch_norms remove_training_nodes strip_unused_nodes preprocess_layers      -> convert
    ... quantize(weight_bits=-8, activation_bits=-8, layer_bits=-16, relu_bits=8, ...)               -> convert, quantize
    ... fold_batch_norms(is_training=True) ... quantize(..., is_training=True)                       -> convert, to_keras

What decides numbers is Graffitist's, not this project's defaults: activations by `klj`, weights by their maximum, the 50
images of `calibration_set.npy` beside the graph. Signs of widths are dropped: they follow from the L rules. A training graph is a
Keras model: `quantize --from-trained` writes it back once it is trained.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..ir import DataError, UsageError
from .convert import Conversion, convert
from .keras_models import to_keras
from .quantize import Quantization, quantize
from .sources import Progress

if TYPE_CHECKING:
    import onnx_ir

    from ..backend_tf import RegeneratedModel
    from ..passes import BitWidths

_QUANTIZE: Final = re.compile(r"\bquantize\s*(?:\(([^()]*)\))?")
_WIDTHS: Final[Mapping[str, str]] = {
    "weight_bits": "weight",
    "activation_bits": "activation",
    "layer_bits": "layer",
    "relu_bits": "relu",
    "avgpool_bits": "average_pool",
    "avgpool_reciprocal_bits": "reciprocal",
}
_LAYERS: Final = ("first_layer", "last_layer")
_SWITCHES: Final = ("is_training", "calibrate_quant_layers")
CALIBRATION_SET: Final = "calibration_set.npy"
"""Where Graffitist looks for its images: a file of this name in the model's folder."""


@dataclass(frozen=True)
class Graffitization:
    """What the transforms gave.

    Attributes:
        conversion: the float model, compared with its source.
        quantization: the quantized one, where `quantize` was among the transforms and the conversion is accepted.
        training: the training graph, where `quantize(is_training=True)` was.
    """

    conversion: Conversion
    quantization: Quantization | None
    training: RegeneratedModel | None = None

    @property
    def ok(self) -> bool:
        """Whether the conversion agrees with its source."""
        return self.conversion.ok

    @property
    def model(self) -> onnx_ir.Model:
        """The last ONNX model."""
        return self.conversion.model if self.quantization is None else self.quantization.model


def graffitize(
    in_graph: str | os.PathLike[str],
    transforms: str,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    calibration: str | os.PathLike[str] | None = None,
    preprocess: str = "none",
    limit: int | None = None,
    seed: int | None = None,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Graffitization:
    """Runs a list of Graffitist's transforms.

    Args:
        in_graph: any source of `convert`.
        transforms: names with options, separated by blanks or commas; `quantize` last, if at all.
        inputs: see `convert`.
        outputs: see `convert`.
        input_shape: see `convert`.
        checkpoint: see `convert`.
        calibration: data for `quantize`; `calibration_set.npy` beside the graph where None.
        preprocess: see `quantize`.
        limit: see `quantize`.
        seed: see `quantize`.
        exclude: see `quantize`.
        progress: called with (done, total, what).

    Raises:
        UsageError: a transform or option that Graffitist does not have.
        UnsupportedError: nothing to quantize, or an operator that a training graph cannot have.
        DataError: no calibration data.
        ModelError: see `convert`.
    """
    floats, options_of_quantize = _parts(transforms)
    bits, training = (None, False) if options_of_quantize is None else _widths(options_of_quantize)
    images = None if options_of_quantize is None else _images(Path(in_graph), calibration)
    conversion = convert(
        in_graph,
        inputs=inputs,
        outputs=outputs,
        input_shape=input_shape,
        checkpoint=checkpoint,
        passes=_shaped(floats, input_shape) or None,
    )
    if images is None or not conversion.ok:
        return Graffitization(conversion, None)
    options: dict[str, Any] = {
        "bits": bits,
        "method": "klj",
        "preprocess": preprocess,
        "limit": limit,
        "seed": seed,
        "exclude": exclude,
        "progress": progress,
    }
    if training:
        return Graffitization(conversion, None, to_keras(conversion.model, images, batch_norm="moving", **options))
    return Graffitization(conversion, quantize(conversion.model, images, weight_method="max", **options))


def trains(transforms: str) -> bool:
    """Whether a list of transforms asks for a training graph: a `.keras` file instead of ONNX.

    Raises:
        UsageError: an option that `quantize` does not have there, or `quantize` in front of others.
    """
    options = _parts(transforms)[1]
    return options is not None and _widths(options)[1]


def _parts(transforms: str) -> tuple[str, str | None]:
    """The transforms in front of `quantize`, and the options of that, or None without it."""
    text = transforms.strip()
    found = list(_QUANTIZE.finditer(text))
    if found and (len(found) > 1 or text[found[-1].end() :].strip(" ,")):
        raise UsageError(f"quantize is expected once, behind the other transforms. Received: {text!r}")
    return (text[: found[0].start()].strip().rstrip(","), found[0][1] or "") if found else (text, None)


def _shaped(transforms: str, input_shape: Sequence[int] | None) -> str:
    """Graffitist's `fix_input_shape` has its shape from `--input_shape`."""
    if input_shape is None:
        return transforms
    return re.sub(r"\bfix_input_shape\b(?!\s*\()", f"fix_input_shape(shape={','.join(map(str, input_shape))})", transforms)


def _widths(text: str) -> tuple[BitWidths, bool]:
    """Options of `quantize`: widths, and whether a training graph is asked for."""
    from ..passes import BitWidths

    training = False
    chosen: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        option, equals, written = (piece.strip() for piece in part.partition("="))
        known = [*_WIDTHS, *_LAYERS, *_SWITCHES]
        if not equals or option not in known:
            raise UsageError(f"quantize: an option of {', '.join(known)} is expected. Received: {part!r}")
        if option in _LAYERS:
            chosen[option] = written.strip("'\"")
        elif option in _WIDTHS:
            if not re.fullmatch(r"-?\d+", written):
                raise UsageError(f"quantize: {option} must be a whole number. Received: {written!r}")
            chosen[_WIDTHS[option]] = abs(int(written))
        elif written not in ("True", "False"):
            raise UsageError(f"quantize: {option} must be True or False. Received: {written!r}")
        elif option == "is_training":
            training = written == "True"
    return BitWidths(**chosen), training


def _images(in_graph: Path, calibration: str | os.PathLike[str] | None) -> Path:
    if calibration is not None:
        return Path(calibration)
    beside = (in_graph if in_graph.is_dir() else in_graph.parent) / CALIBRATION_SET
    if not beside.is_file():
        raise DataError(f"quantize: {beside} is expected where no calibration data is given. Received: no such file")
    return beside
