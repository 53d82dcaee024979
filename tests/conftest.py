"""Shared test set-up: where third-party data lies, and TensorFlow kept quiet and deterministic."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from hypothesis import settings
from third_party import DATA

settings.register_profile("tqt", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tqt")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of third-party models and images; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"third-party data not found at {DATA}; set TQT_ONNX_DATA")
    return DATA


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a small network taken the whole road by the command line (`support/small_network.py`); read it only."""
    from small_network import write_road

    from tqt_onnx.cli import run

    folder = tmp_path_factory.mktemp("road")
    write_road(folder, run)
    return folder
