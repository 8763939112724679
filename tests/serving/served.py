"""Starts the small model server of `benchmarks/` on an export."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))

import model_server  # noqa: E402

MODEL_NAME = "rectangles"


def start(saved_model: pathlib.Path, folder: pathlib.Path, warm_up: bool = False):
    """Serve an export as version 3 of `MODEL_NAME`."""
    base = folder / MODEL_NAME
    base.mkdir()
    (base / "3").symlink_to(saved_model)
    return model_server.ModelServer(base, MODEL_NAME, warm_up)
