"""What `quantize` does beyond static mode: retraining, and writing back what was trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from .options import JsonOutput, filled_in, widths
from .sections import section_of
from .training_options import SCHEDULE, TUNE, share_or_path

if TYPE_CHECKING:
    from ..verbs.quantize import Quantization
    from ..verbs.retraining import Retraining

_WIDTHS: Final = (
    "weight_bits",
    "activation_bits",
    "layer_bits",
    "relu_bits",
    "avgpool_bits",
    "avgpool_reciprocal_bits",
    "first_layer",
    "last_layer",
    "unsigned_input",
)

_OF_QUANTIZERS: Final = (*_WIDTHS, "calibration", "method", "percentile", "weight_method", "parallel_calibration", "ignore_ranges")
"""Options without a meaning where a float network is trained and written."""

_OF_WRITING_BACK: Final = ("from_trained", "output", "force", "strict", "as_json")
"""Options that `--from-trained` goes with."""

INTERRUPTED: Final = 130
"""Exit status of a training that Ctrl-C ended early: its model is written, but it is not what was asked for."""


@dataclass
class Ending:
    """The end of `quantize`.

    Attributes:
        output: the model to write.
        json: where the report goes.
        force: whether an output that exists is overwritten.
        strict: whether nothing is written where a layer stays float.
        saved: whether the model is written.
    """

    output: Path
    json: JsonOutput
    force: bool
    strict: bool
    saved: bool = False

    def save(self, result: Quantization | Retraining) -> None:
        """Writes the model, unless `strict` objects."""
        from ..ir import save

        if not self._refused(result):
            save(result.model, self.output, force=self.force)
            self.saved = True

    def report(self, result: Quantization | Retraining) -> int:
        """Writes the report, shows what was done, and gives the exit status."""
        from ..verbs.retraining import Retraining
        from ..verbs.show import show_quantization, show_retraining

        if isinstance(result, Retraining) and not result.chief:
            click.echo(f"tqt-onnx: done; worker 0 writes {self.output}", err=True)
            return 0
        self.json.write(result)
        if not self.json.instead:
            written = self.output if self.saved else None
            show_retraining(result, written) if isinstance(result, Retraining) else show_quantization(result, written)
        training = result.training if isinstance(result, Retraining) else None
        if training is not None and training.interrupted:
            again = f"step {training.steps} of {training.total}; the same command with --force goes on"
            click.echo(f"tqt-onnx: interrupted at {again}", err=True)
            return INTERRUPTED
        return 1 if self._refused(result) else 0

    def _refused(self, result: Quantization | Retraining) -> bool:
        from ..verbs.retraining import Retraining

        quantization = result.quantization if isinstance(result, Retraining) else result
        return self.strict and quantization is not None and bool(quantization.float_layers)


def refuse_contradictions(options: Mapping[str, Any]) -> None:
    """Refuses options that belong to another way of deciding the thresholds than the one asked for.

    Raises:
        UsageError: naming the options and what they need.
    """
    from ..ir import UsageError

    chosen = [
        flag for flag, name in (("--tune", "tune"), ("--retrain", "retrain"), ("--from-trained", "from_trained")) if options[name]
    ]
    if len(chosen) > 1:
        raise UsageError(f"quantize: one of --tune, --retrain and --from-trained is expected. Received: {' and '.join(chosen)}")
    typed = [parameter for parameter in click.get_current_context().command.params if _is_typed(parameter)]
    for parameter in typed:
        section = section_of(parameter)
        needed = "--tune" if section == TUNE else "--retrain"
        if section is not None and parameter.opts[0] != "--from-trained" and needed not in chosen:
            raise UsageError(f"quantize: {parameter.opts[0]} belongs to {needed}, which is not given")
    if options["from_trained"] is not None:
        if options["model"] is not None:
            raise UsageError(f"quantize: --from-trained takes no MODEL. Received: {options['model']}")
        settled = [parameter.opts[0] for parameter in typed if parameter.name not in _OF_WRITING_BACK]
        if settled:
            raise UsageError(f"quantize: what {settled[0]} says was settled when the model of --from-trained was made")
        return
    if options["model"] is None:
        raise UsageError("quantize: a MODEL is expected (or --from-trained FILE)")
    if options["retrain"] and options["train"] is None:
        raise UsageError("quantize: --retrain needs training data, --train DATA")
    useless = [parameter.opts[0] for parameter in typed if parameter.name in _OF_QUANTIZERS]
    if options["retrain"] and options["mode"] == "float" and useless:
        raise UsageError(
            f"quantize: --mode float trains without quantizers; options of theirs say nothing there. Received: {', '.join(useless)}"
        )
    if options["tune"] and options["parallel_calibration"]:
        raise UsageError(
            "quantize: --tune goes layer by layer; one of --tune and --parallel-calibration is expected. Received: both"
        )
    if not options["retrain"] and options["calibration"] is None:
        raise UsageError("quantize: --calibration DATA is expected")


def files_read(options: Mapping[str, Any]) -> list[Path]:
    """Every file or folder that `quantize` reads: none of them is an output."""
    found = [options[name] for name in ("model", "calibration", "train", "test", "exclude", "from_trained")]
    select, preset = share_or_path(options["select"]), options["preset"]
    found.append(select if isinstance(select, Path) else None)
    found.append(Path(preset) if preset is not None and preset.endswith(".toml") else None)
    return [path for path in found if path is not None]


def _is_typed(parameter: click.Parameter) -> bool:
    source = click.get_current_context().get_parameter_source(parameter.name or "")
    return source not in (None, ParameterSource.DEFAULT)


def shared(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that calibrating and retraining have in common; what a preset knows need not be typed."""
    known = filled_in(options["preset"], preprocess=options["preprocess"], **{name: options[name] for name in _WIDTHS})
    prepare = known.pop("preprocess")
    return {
        "bits": widths(**known),
        "method": options["method"],
        "percentile": options["percentile"],
        "parallel": options["parallel_calibration"],
        "ignore_ranges": options["ignore_ranges"],
        "passes": options["passes"],
        "preprocess": prepare,
        "limit": options["limit"],
        "exclude": options["exclude"],
    }


def retrain(options: Mapping[str, Any], ending: Ending) -> int:
    """`--retrain`: the model is written as soon as it is trained, then measured."""
    from ..ir import TqtOnnxError
    from ..verbs.retraining import StoppedError

    try:
        result = _trained(options, ending)
    except StoppedError as stopped:  # nothing is lost: the best state so far is written
        ending.report(stopped.retraining)
        raise stopped.reason from None
    except TqtOnnxError as error:
        if not ending.saved:
            raise
        done = f"{ending.output} is written, and the same command with --force goes on from there, but it could not be measured"
        raise type(error)(f"{done}: {error}") from error
    except BaseException:
        if ending.saved:
            click.echo(f"tqt-onnx: {ending.output} is written, but not measured", err=True)
        raise
    return ending.report(result)


def _trained(options: Mapping[str, Any], ending: Ending) -> Retraining:
    from ..ir import TqtOnnxError, UsageError

    given = shared(options)
    offset = filled_in(options["preset"], label_offset=options["label_offset"])["label_offset"]
    from ..report import progress_bar
    from ..verbs.retrain import make_schedule
    from ..verbs.retrain import retrain as run

    output = ending.output
    folder = options["folder"] or output.with_suffix(".train")
    if folder.resolve() == output.resolve():
        raise UsageError(f"{folder}: is the file to write; another name is expected for --folder")
    schedule = make_schedule(**{entry.name: options[entry.name] for entry in SCHEDULE})
    select = share_or_path(options["select"])
    if select == 0 and options["keep"] == "best":
        raise UsageError("quantize: --keep best needs data to select by. Received: --select 0")
    if options["mode"] == "float":  # what a preset says of widths is for the quantization of its result
        given["bits"] = None

    def save(result: Retraining) -> None:
        try:
            ending.save(result)
        except TqtOnnxError as error:
            raise type(error)(f"the training is done, and the same command goes on from {folder}, but {error}") from error

    with progress_bar() as progress:
        return run(
            options["model"],
            options["train"],
            calibration=options["calibration"],
            select=None if select == 0 else select,
            test=options["test"],
            weight_method=options["weight_method"],
            label_offset=offset[0] if isinstance(offset, tuple) else offset,
            augment=options["augment"],
            mode=options["mode"],
            loss="distill" if options["distill"] else "labels",
            temperature=options["temperature"],
            label_smoothing=options["label_smoothing"],
            keep=options["keep"],
            schedule=schedule,
            batch_norm_momentum=options["batch_norm_momentum"],
            folder=folder,
            checkpoint_every=options["checkpoint_every"],
            restart=options["restart"],
            strategy=options["strategy"],
            seed=options["seed"] or 0,
            progress=progress,
            save=save,
            **given,
        )


def write_back(options: Mapping[str, Any]) -> Quantization:
    """`--from-trained`."""
    from ..verbs.keras_models import from_keras

    return from_keras(options["from_trained"])
