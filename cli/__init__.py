"""The command `tqt-onnx`: each verb is a thin call of the Python function of the same name.

Exit status: 0 done, 1 the answer is no, 2 bad input (one line on standard error; a traceback only with --debug).
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import click

from .. import __version__
from .calibration_set import calibration_set
from .check import check
from .convert import convert
from .demo import demo
from .evaluate import evaluate
from .export import export
from .graffitize import graffitize
from .inspect import inspect
from .passes import passes
from .presets import presets
from .quantize import quantize

COMMANDS: Final = (convert, quantize, export, check, evaluate, inspect, calibration_set, presets, passes, graffitize, demo)
"""Every verb, in the order of the help."""


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """As written above; click's own order is the alphabet's."""
        return [command.name for command in COMMANDS if command.name]


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": lambda word: word.replace("_", "-")},
)
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def app(debug: bool) -> None:
    """TensorFlow networks to power-of-two fixed-point ONNX, bit for bit what the hardware computes."""


for _command in COMMANDS:
    app.add_command(_command)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: the process ends as with Ctrl-C, so that no temporary file stays behind."""


def _terminate(*_: Any) -> None:
    raise _Terminated


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and leaves with its exit status."""
    signal.signal(signal.SIGTERM, _terminate)
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
    except (click.exceptions.Abort, KeyboardInterrupt) as stop:
        click.echo("tqt-onnx: interrupted", err=True)
        return 143 if isinstance(stop, _Terminated) or isinstance(stop.__cause__, _Terminated) else 130
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _refuse(error.format_message())
    except BrokenPipeError:
        return 1
    except Exception as error:
        from ..ir.errors import TqtOnnxError

        if debug:
            traceback.print_exc()
            return 2
        if isinstance(error, TqtOnnxError):
            return _refuse(str(error))
        if isinstance(error, OSError):  # no room for the report, a name that no file system takes
            return _refuse(": ".join(str(part)[:200] for part in (error.filename, error.strerror or error) if part))
        if isinstance(error, MemoryError):
            return _refuse("not enough memory")
        return _refuse(f"unexpected {type(error).__name__}: {error} (a defect of tqt-onnx; --debug shows where)")


def _refuse(message: str) -> int:
    click.echo(f"tqt-onnx: error: {' '.join(message.split())}", err=True)
    return 2
