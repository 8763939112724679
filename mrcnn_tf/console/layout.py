"""Where to find what a checkout has beside the package, and a wheel inside it (`setup.py`)."""

import os
import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def folder(name: str) -> pathlib.Path:
    """Return the folder `experiments` or `data_prep` of this installation."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def data_prep_command(name: str) -> tuple[str, ...]:
    """Return what follows `python` to run a command of `data_prep`, from the current folder."""
    path = folder("data_prep")
    if path.parent == _PACKAGE:
        return "-m", f"mrcnn_tf.data_prep.{name}"
    return (os.path.relpath(path / f"{name}.py"),)
