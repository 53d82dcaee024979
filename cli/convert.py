"""`tqt-onnx convert`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import FILE, JsonOutput, check_output, filled_in, json_option, names, numbers, output_options, preset_option


@click.command()
@click.argument("model", type=FILE)
@output_options
@preset_option
@click.option("--inputs", help="Input tensors of a graph, separated by commas; found where there is one choice.")
@click.option("--outputs", help="Output tensors of a graph, separated by commas; found where there is one choice.")
@click.option("--input-shape", help="H,W,C where the graph does not know it.")
@click.option("--checkpoint", type=FILE, help="Variables of an unfrozen graph, where they do not lie beside it.")
@click.option("--signature", help="Of a SavedModel that has several.")
@click.option("--trust", is_flag=True, help="Run the Python code of Lambda layers inside a Keras file.")
@click.option("--keep-batch-norm", is_flag=True, help="Leave batch norms unfolded, for retraining.")
@click.option("--passes", help='Run these instead of the recipe "optimize": "a,b(option=value),..."; `tqt-onnx passes` lists them.')
@json_option
def convert(
    model: Path,
    output: Path,
    force: bool,
    preset: str | None,
    inputs: str | None,
    outputs: str | None,
    input_shape: str | None,
    checkpoint: Path | None,
    signature: str | None,
    trust: bool,
    keep_batch_norm: bool,
    passes: str | None,
    as_json: str | None,
) -> int:
    """A trained MODEL to optimized float ONNX, compared with what it was.

    MODEL is a .pb, .pbtxt, .meta, .keras, .h5 or .onnx file, a SavedModel, or a folder with a checkpoint. Exit status 1, and
    nothing written, where the two differ by more than 1e-4 of an output's range.
    """
    from ..ir import UsageError, save

    check_output(output, model, checkpoint, force=force)
    report = JsonOutput(as_json, model, output, checkpoint, force=force)
    if preset is not None and model.suffix.lower() == ".onnx":
        raise UsageError(
            f"--preset names tensors of a TensorFlow graph; an .onnx file says itself what they are. Received: {model}"
        )
    known = filled_in(preset, inputs=inputs, outputs=outputs, input_shape=input_shape)
    shape = numbers(known["input_shape"], "--input-shape")
    from ..verbs.convert import convert as run
    from ..verbs.show import show_conversion

    result = run(
        model,
        inputs=names(known["inputs"]),
        outputs=names(known["outputs"]),
        input_shape=shape,
        checkpoint=checkpoint,
        signature=signature,
        trust=trust,
        keep_batch_norm=keep_batch_norm,
        passes=passes,
    )
    if result.ok:
        save(result.model, output, force=force)
    report.write(result)
    if not report.instead:
        show_conversion(result, output)
    return 0 if result.ok else 1
