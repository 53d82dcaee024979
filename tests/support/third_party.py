"""Where third-party models and images lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

DATA: Final = Path(os.environ.get("TQT_ONNX_DATA", Path(__file__).parents[3] / "shared" / "data"))
"""They are never part of the repository; tests that need them are skipped where the folder is absent."""
