"""Typed errors: each one is a single line that says what, where, why and what would be accepted.

The command line prints the line and leaves with exit status 2; anything that is not one of these is a defect of ours.
"""


class TqtOnnxError(Exception):
    """Base of every error that bad input can cause."""


class ModelError(TqtOnnxError):
    """A model file or graph that is not what it should be (truncated, ill-formed, wrong opset, unknown name)."""


class UnsupportedError(TqtOnnxError):
    """A well-formed model that asks for something this project cannot do exactly."""


class DataError(TqtOnnxError):
    """Calibration or evaluation data of the wrong shape, dtype, size or content."""


class UsageError(TqtOnnxError):
    """Options that contradict each other, or an output that is in the way."""
