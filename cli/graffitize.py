"""`tqt-onnx graffitize`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .options import FILE, check_file, data_options, names, numbers


@click.command()
@click.option("--in-graph", required=True, type=FILE, help="As MODEL of `convert`.")
@click.option("--out-graph", required=True, type=FILE, help="File to write: ONNX, or .keras for a training graph.")
@click.option("--inputs", help="Input tensors, separated by commas.")
@click.option("--outputs", help="Output tensors, separated by commas.")
@click.option("--input-shape", help="H,W,C where the graph does not know it.")
@click.option("--checkpoint", type=FILE, help="Variables of an unfrozen graph, where they do not lie beside it.")
@click.option("--transforms", is_flag=True, expose_value=False, help="What follows is the list of transforms.")
@click.argument("items", nargs=-1, required=True, metavar="TRANSFORM...")
@click.option("--calibration", type=FILE, help="Images or arrays; calibration_set.npy beside the graph if not given.")
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@data_options
def graffitize(
    in_graph: Path,
    out_graph: Path,
    inputs: str | None,
    outputs: str | None,
    input_shape: str | None,
    checkpoint: Path | None,
    items: Sequence[str],
    calibration: Path | None,
    force: bool,
    preprocess: str,
    limit: int | None,
    seed: int | None,
    exclude: Path | None,
) -> int:
    """A Graffitist command, as it was typed there.

    Its transforms do here what they did there: fix_input_shape, fold_batch_norms, remove_training_nodes, strip_unused_nodes,
    preprocess_layers, quantize(weight_bits=-8, ...); with is_training=True a Keras model to be trained. New work is better served
    by `convert` and `quantize`.
    """
    from ..ir import save
    from ..verbs.graffitize import trains

    transforms = " ".join(items)
    target = out_graph.with_suffix(".keras" if trains(transforms) else ".onnx")
    check_file(target, in_graph, checkpoint, calibration, exclude, force=force)
    shape = numbers(input_shape, "--input_shape")
    from ..report import progress_bar
    from ..verbs.graffitize import graffitize as run
    from ..verbs.keras_models import save_keras
    from ..verbs.show import show_conversion, show_quantization, show_training_graph

    with progress_bar() as progress:
        result = run(
            in_graph,
            transforms,
            inputs=names(inputs),
            outputs=names(outputs),
            input_shape=shape,
            checkpoint=checkpoint,
            calibration=calibration,
            preprocess=preprocess,
            limit=limit,
            seed=seed,
            exclude=exclude,
            progress=progress,
        )
    if result.training is not None:
        save_keras(result.training, target, force=force)
        show_conversion(result.conversion, target)
        show_training_graph(target)
        return 0
    if result.ok:
        save(result.model, target, force=force)
    show_conversion(result.conversion, target)
    if result.quantization is not None:
        show_quantization(result.quantization, target)
    return 0 if result.ok else 1
