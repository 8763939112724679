r"""Build a TFDS data set of a COCO folder, with exact masks.

    python data_prep/tfds_build.py --manual_dir=coco --data_dir=datasets/tfds

is `tfds build data_prep/tfds/coco_folder` with the same flags, which are TFDS's; that command of
TFDS 4.9.10 does not start where Apache Beam is not installed. What a folder holds, and how one that
is not laid out as COCO is named: docs/tfds.md.
"""

import dataclasses
import importlib.util
import os
import pathlib
import sys
from typing import Any

from absl import app

if not __package__:  # run as a file: neither its package nor the project's is known yet
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    __package__ = "data_prep"

from mrcnn_tf.console import command_line

_BUILDER = pathlib.Path(__file__).parent / "tfds" / "coco_folder"


def _parse(argv: list[str]) -> Any:
    """Parse TFDS's flags, and take the COCO folder's builder where none is named."""
    from tensorflow_datasets.scripts.cli import build, cli_utils

    description = "\n".join((__doc__ or "").splitlines()[2:])
    args = cli_utils.make_flags_parser(build.Args, description=description)(argv)
    if args.positional_datasets or args.datasets or args.generation.imports:
        return args
    return dataclasses.replace(args, positional_datasets=[str(_BUILDER)])


def main(args: Any) -> None:
    """Build."""
    import tensorflow as tf

    try:
        args.execute()
    # TFDS says by an AssertionError that there is no --manual_dir.
    except (ValueError, OSError, AssertionError) as error:
        sys.exit(f"error: {error}")
    except tf.errors.OpError as error:  # a full disk under a file of records
        sys.exit(f"error: {error.message}")


def run_main() -> None:
    """Run the command that was typed."""
    # Beam's environment has no packages for training, and needs none here.
    if importlib.util.find_spec("tensorflow_datasets") is None:
        command_line.require("train")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        app.run(main, flags_parser=_parse)
    except KeyboardInterrupt as interrupt:
        raise SystemExit(130) from interrupt


if __name__ == "__main__":
    run_main()
