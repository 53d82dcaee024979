"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from ..passes import BitWidths
    from ..verbs.presets import Preset

METHODS: Final = ("mse", "max", "percentile", "klj")
WEIGHT_METHODS: Final = ("mse", "max", "3sd")
PREPROCESS: Final = ("none", "inception", "vgg", "resnet_v1p5", "darknet", "letterbox", "unit", "signed_unit")
"""Repeated here so that `--help` loads no NumPy; a test compares them with the tables of `calibrate` and `datasets`."""

SEED: Final = click.IntRange(0, 2**32 - 1)
"""What every generator of random numbers takes."""

FILE: Final = click.Path(path_type=Path)

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Option) -> Option:
    """One decorator for several options, in the order of the help."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


preset_option = click.option(
    "--preset", metavar="NAME|FILE.toml", help="A network that `tqt-onnx presets` lists: what is known of it need not be typed."
)


def data_options_of(data: str = "") -> Option:
    """Options of data.

    Args:
        data: behind the help of those that choose among examples: which data they mean, where a command has several.
    """
    return together(
        click.option(
            "--preprocess", type=click.Choice(PREPROCESS), default="none", show_default=True, help="How images become inputs."
        ),
        click.option("--limit", type=click.IntRange(min=1), help=f"Use at most so many examples{data}."),
        click.option("--seed", type=SEED, help="Draw the examples at random with this seed; without it, in order."),
        click.option(
            "--exclude", type=FILE, help=f"Leave out what this file names, one to a line (as calibration-set --list){data}."
        ),
    )


data_options = data_options_of()
output_options = together(
    click.option("-o", "--output", type=FILE, required=True, help="File to write."),
    click.option("--force", is_flag=True, help="Overwrite the output if it exists."),
)
json_force_option = click.option("--force", is_flag=True, help="Overwrite the JSON file if it exists.")
json_option = click.option(
    "--json", "as_json", metavar="FILE", help="Write the result as JSON too; - prints it instead of the tables."
)
width_options = together(
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


_SOURCES: Final = (".pb", ".pbtxt", ".meta", ".keras", ".h5", ".hdf5", ".npy", ".npz")


def check_output(output: Path, *inputs: Path | None, force: bool) -> None:
    """Refuses an ONNX file to write as `check_file` does, and one that bears the suffix of another kind of file.

    Raises:
        UsageError: any of these.
    """
    from ..ir import UsageError

    if output.suffix.lower() in _SOURCES:
        raise UsageError(f"{output}: ONNX is written; a name that ends in .onnx is expected. Received: {output.suffix!r}")
    check_file(output, *inputs, force=force)


def check_file(output: Path, *inputs: Path | None, force: bool) -> None:
    """Refuses an output that is in the way, or that is one of the inputs, before any work is done.

    Args:
        output: the file to write.
        inputs: every file that the command reads; None for those not given.
        force: whether a file that exists is overwritten.

    Raises:
        UsageError: any of these.
    """
    from ..ir import UsageError, check_writable

    if any(path is not None and output.exists() and path.exists() and output.samefile(path) for path in inputs):
        raise UsageError(f"{output}: is the input too; another name is expected")
    check_writable(output, force=force)


def names(text: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """`a,b` as a tuple; what a preset gives is one."""
    if text is None or not isinstance(text, str):
        return None if text is None else tuple(text)
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(text: str | Sequence[int] | None, option: str) -> tuple[int, ...] | None:
    """`224,224,3` as a tuple; what a preset gives is one."""
    if text is None or not isinstance(text, str):
        return None if text is None else tuple(text)
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"whole numbers separated by commas are expected. Received: {text!r}", param_hint=option) from None


def widths(
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
    from ..passes import BitWidths

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


def filled_in(name: str | None, **values: Any) -> dict[str, Any]:
    """Options of the running command; those that were not typed come from the preset, where there is one.

    Args:
        name: of the preset, or None.
        **values: options by parameter name, as click gives them, of those that a preset knows (`_KNOWN`).

    Raises:
        UsageError: no such preset.
    """
    if name is None:
        return values
    from ..verbs.presets import preset

    context, found = click.get_current_context(), preset(name)
    typed = {option for option in values if context.get_parameter_source(option) is not ParameterSource.DEFAULT}
    return {option: value if option in typed else _KNOWN[option](found) for option, value in values.items()}


_KNOWN: Final[dict[str, Callable[[Preset], Any]]] = {
    "inputs": lambda found: found.inputs,
    "outputs": lambda found: found.outputs,
    "input_shape": lambda found: found.input_shape,
    "preprocess": lambda found: found.preparation,
    "label_offset": lambda found: (found.label_offset,),
    "weight_bits": lambda found: found.bits.weight,
    "activation_bits": lambda found: found.bits.activation,
    "layer_bits": lambda found: found.bits.layer,
    "relu_bits": lambda found: found.bits.relu,
    "avgpool_bits": lambda found: found.bits.average_pool,
    "avgpool_reciprocal_bits": lambda found: found.bits.reciprocal,
    "first_layer": lambda found: found.bits.first_layer,
    "last_layer": lambda found: found.bits.last_layer,
    "unsigned_input": lambda found: found.bits.unsigned_input,
}
"""Option -> its value in a preset."""


class JsonOutput:
    """Where `--json` goes: nowhere, to standard output, or to a file that is checked before any work is done.

    Args:
        target: what was typed, or None.
        others: files that the command reads or writes; the report is none of them.
        force: whether an existing file is overwritten.
    """

    def __init__(self, target: str | None, *others: Path | None, force: bool) -> None:
        from ..ir import UsageError, check_writable

        self.target, self._force = target, force
        if target is None or target == "-":
            return
        if any(other is not None and Path(target).resolve() == other.resolve() for other in others):
            raise UsageError(f"{target}: is another file of this command; a name of its own is expected for --json")
        check_writable(target, force=force)

    @property
    def instead(self) -> bool:
        """Whether the tables are to be left out."""
        return self.target == "-"

    def write(self, result: Any) -> None:
        """Writes `result.to_dict()`; NaN and infinities are not JSON and would raise."""
        import json

        from ..ir import atomic_path

        if self.target is None:
            return
        text = json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"
        if self.instead:
            click.echo(text, nl=False)
            return
        with atomic_path(self.target, force=self._force) as temporary:
            temporary.write_text(text, encoding="utf-8")
