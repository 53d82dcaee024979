"""The command `tqt-onnx`: each verb is a thin call of the Python function of the same name.

Exit status: 0 done, 1 the answer is no, 2 bad input (one line on standard error; a traceback only with --debug).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from . import __version__

if TYPE_CHECKING:
    from .passes import BitWidths

METHODS: Final = ("mse", "max", "klj")
WEIGHT_METHODS: Final = ("mse", "max")
PRESETS: Final = ("none", "inception", "unit", "vgg")
"""Repeated here so that `--help` loads no NumPy; a test compares them with the tables of `calibrate` and `datasets`."""

SEED: Final = click.IntRange(0, 2**32 - 1)
"""What every generator of random numbers takes."""

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def _options(*options: Option) -> Option:
    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


_data_options = _options(
    click.option("--preprocess", type=click.Choice(PRESETS), default="none", show_default=True, help="Preset for images."),
    click.option("--limit", type=click.IntRange(min=1), help="Use at most so many examples."),
    click.option("--seed", type=SEED, help="Draw the examples at random with this seed; without it, in order."),
)
_output_options = _options(
    click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write."),
    click.option("--force", is_flag=True, help="Overwrite the output if it exists."),
)
_width_options = _options(
    click.option("--weight-bits", type=int, default=8, show_default=True, help="2 to 8; below 8 the first and last layer keep 8."),
    click.option("--activation-bits", type=int, default=8, show_default=True, help="2 to 8."),
    click.option(
        "--layer-bits", type=int, default=16, show_default=True, help="16: sum and bias rounded to 16 bits; 32: int32 bias."
    ),
    click.option("--relu-bits", type=int, default=8, show_default=True, help="2 to 8."),
    click.option("--avgpool-bits", type=int, default=8, show_default=True, help="2 to 8."),
    click.option("--avgpool-reciprocal-bits", type=int, default=8, show_default=True, help="2 to 8."),
    click.option("--first-layer", help="Name of the first compute layer, where graph order does not tell."),
    click.option("--last-layer", help="Name of the last compute layer."),
    click.option("--unsigned-input", is_flag=True, help="The network's inputs are never negative: uint8 instead of int8."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def app(debug: bool) -> None:
    """TensorFlow networks to power-of-two fixed-point ONNX, bit for bit what the hardware computes."""


@app.command()
@click.argument("model", type=click.Path(path_type=Path))
@_output_options
@click.option("--inputs", help="Input tensors of a frozen graph, separated by commas.")
@click.option("--outputs", help="Output tensors of a frozen graph, separated by commas.")
@click.option("--input-shape", help="H,W,C where the graph does not know it.")
@click.option("--keep-batch-norm", is_flag=True, help="Leave batch norms unfolded, for retraining.")
def convert(
    model: Path, output: Path, force: bool, inputs: str | None, outputs: str | None, input_shape: str | None, keep_batch_norm: bool
) -> int:
    """A trained TensorFlow MODEL (.pb, .keras, .h5) to optimized float ONNX, compared with TensorFlow.

    Exit status 1, and nothing written, where the two differ by more than 1e-4 of an output's range.
    """
    from .ir import check_writable, save

    check_writable(output, force=force)
    shape = _numbers(input_shape, "--input-shape")
    from .verbs.convert import convert as run
    from .verbs.show import show_conversion

    result = run(model, inputs=_names(inputs), outputs=_names(outputs), input_shape=shape, keep_batch_norm=keep_batch_norm)
    if result.ok:
        save(result.model, output, force=force)
    show_conversion(result, output)
    return 0 if result.ok else 1


@app.command()
@click.argument("model", type=click.Path(path_type=Path))
@_output_options
@click.option("--calibration", required=True, type=click.Path(path_type=Path), help="Images or arrays to calibrate with.")
@click.option(
    "--method", type=click.Choice(METHODS), default="mse", show_default=True, help="How activation thresholds are decided."
)
@click.option("--weight-method", type=click.Choice(WEIGHT_METHODS), default="mse", show_default=True, help="The same for weights.")
@click.option("--parallel-calibration", is_flag=True, help="One float pass for all tensors: faster, a little less accurate.")
@_width_options
@_data_options
@click.option("--strict", is_flag=True, help="Exit with 1 and write nothing if a layer stays float.")
def quantize(
    model: Path,
    output: Path,
    force: bool,
    calibration: Path,
    method: str,
    weight_method: str,
    parallel_calibration: bool,
    preprocess: str,
    limit: int | None,
    seed: int | None,
    strict: bool,
    **widths: Any,
) -> int:
    """A float MODEL (.onnx from `convert`) to a quantized one with power-of-two scales."""
    from .ir import check_writable, save

    check_writable(output, force=force)
    bits = _bits(**widths)
    from .report import progress_bar
    from .verbs.quantize import quantize as run
    from .verbs.show import show_quantization

    with progress_bar() as progress:
        result = run(
            model,
            calibration,
            bits=bits,
            method=method,
            weight_method=weight_method,
            parallel=parallel_calibration,
            preprocess=preprocess,
            limit=limit,
            seed=seed,
            progress=progress,
        )
    refused = strict and bool(result.float_layers)
    if not refused:
        save(result.model, output, force=force)
    show_quantization(result, None if refused else output)
    return 1 if refused else 0


@app.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Inputs to run.")
@click.option("--engines", default="oracle,ort", show_default=True, help="Of oracle, ort, tf; tf loads TensorFlow.")
@click.option(
    "--copy", "copies", multiple=True, metavar="ENGINE=FILE", help="Run ENGINE (oracle, ort, ort-optimized, tf) on another file."
)
@_data_options
def check(
    model: Path, data: Path, engines: str, copies: Sequence[str], preprocess: str, limit: int | None, seed: int | None
) -> int:
    """Do all engines compute the same integers for a quantized MODEL? Exit status 1 if not."""
    from .ir import load
    from .report import progress_bar
    from .verbs.check import check as run
    from .verbs.show import show_check

    own = {engine: load(path) for engine, path in _copies(copies).items()}
    with progress_bar() as progress:
        result = run(
            model, data, engines=_names(engines) or (), copies=own, preprocess=preprocess, limit=limit, seed=seed, progress=progress
        )
    show_check(result)
    return 0 if result.ok else 1


@app.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Labelled images or arrays.")
@click.option("--label-offset", type=int, default=0, show_default=True, help="Output index of class 0 (1 with a background class).")
@click.option(
    "--min-accuracy", type=click.FloatRange(0, 1), help="Exit with 1 if the last model's top-1 is below this share (0 to 1)."
)
@_data_options
def evaluate(
    models: Sequence[Path],
    data: Path,
    label_offset: int,
    min_accuracy: float | None,
    preprocess: str,
    limit: int | None,
    seed: int | None,
) -> int:
    """Top-1 and top-5 of one or more MODELS (.onnx) on the same images, compared with the first."""
    from .ir import UsageError
    from .report import progress_bar
    from .verbs.evaluate import evaluate as run
    from .verbs.show import show_accuracy

    if len(set(models)) != len(models):
        raise UsageError("each model can be given once")
    with progress_bar() as progress:
        result = run(
            {str(path): path for path in models},
            data,
            preprocess=preprocess,
            label_offset=label_offset,
            limit=limit,
            seed=seed,
            labelled=min_accuracy is not None,
            progress=progress,
        )
    show_accuracy(result)
    return 0 if min_accuracy is None or result.models[-1].top1_share >= min_accuracy else 1


@app.command()
@click.argument("model", type=click.Path(path_type=Path))
@_width_options
def inspect(model: Path, **widths: Any) -> int:
    """What is in a MODEL (.onnx), what is or would be quantized, and what stays float and why."""
    bits = _bits(**widths)
    from .verbs.inspect import inspect as run
    from .verbs.show import show_inspection

    show_inspection(run(model, bits=bits))
    return 0


@app.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True, help="Folder.")
@click.option("--force", is_flag=True, help="Overwrite files of an earlier run.")
@click.option("--epochs", type=click.IntRange(min=1), default=12, show_default=True, help="Of training.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the data split and the training.")
@_width_options
def demo(output: Path, force: bool, epochs: int, seed: int, **widths: Any) -> int:
    """Trains a small network on handwritten digits and takes it the whole road to proven fixed point."""
    bits = _bits(**widths)
    from .report import progress_bar
    from .verbs.demo import demo as run
    from .verbs.show import show_demo

    with progress_bar() as progress:
        result = run(output, bits=bits, epochs=epochs, seed=seed, force=force, progress=progress)
    show_demo(result)
    return 0 if result.check.ok else 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and leaves with its exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Runs the command; the exit status is returned. Bad input is one line on standard error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before any verb loads TensorFlow
    debug = "--debug" in arguments  # accepted in front of and behind the verb
    try:
        status = app.main(args=[word for word in arguments if word != "--debug"], prog_name="tqt-onnx", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("tqt-onnx: interrupted", err=True)
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _refuse(error.format_message())
    except BrokenPipeError:
        return 1
    except Exception as error:
        from .ir.errors import TqtOnnxError

        if debug:
            traceback.print_exc()
            return 2
        if isinstance(error, TqtOnnxError):
            return _refuse(str(error))
        return _refuse(f"unexpected {type(error).__name__}: {error} (a defect of tqt-onnx; --debug shows where)")


def _refuse(message: str) -> int:
    click.echo(f"tqt-onnx: error: {' '.join(message.split())}", err=True)
    return 2


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _copies(texts: Sequence[str]) -> dict[str, str]:
    """Engine -> file of `--copy ENGINE=FILE`."""
    found: dict[str, str] = {}
    for text in texts:
        engine, _, path = text.partition("=")
        if not (engine and path):
            raise click.BadParameter(f"ENGINE=FILE is expected. Received: {text!r}", param_hint="--copy")
        if engine in found:
            raise click.BadParameter(f"engine {engine!r} is given twice", param_hint="--copy")
        found[engine] = path
    return found


def _numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"whole numbers separated by commas are expected. Received: {text!r}", param_hint=option) from None


def _bits(
    *,
    weight_bits: int,
    activation_bits: int,
    layer_bits: int,
    relu_bits: int,
    avgpool_bits: int,
    avgpool_reciprocal_bits: int,
    first_layer: str | None,
    last_layer: str | None,
    unsigned_input: bool,
) -> BitWidths:
    """Widths from the command line; a negative number means its magnitude, as Graffitist's users write signed widths."""
    from .passes import BitWidths

    return BitWidths(
        weight=abs(weight_bits),
        activation=abs(activation_bits),
        layer=abs(layer_bits),  # type: ignore[arg-type]  # BitWidths checks it
        relu=abs(relu_bits),
        average_pool=abs(avgpool_bits),
        reciprocal=abs(avgpool_reciprocal_bits),
        unsigned_input=unsigned_input,
        first_layer=first_layer,
        last_layer=last_layer,
    )
