r"""Convert a COCO folder to TFRecord files.

    python data_prep/create_coco_tfrecord.py \
      --image_dir=coco/train2017 \
      --object_annotations_file=coco/annotations/instances_train2017.json \
      --output_file_prefix=datasets/coco/train --num_shards=256

writes datasets/coco/train-00000-of-00256.tfrecord and so on, label_map.json beside them, and
train.manifest.json, by which an interrupted run continues: type the same command again. What a
record holds is said in mrcnn_tf/data/schema.py. The bytes do not depend on --num_processes.

What is odd about the input is noted (harmless), repaired (it follows from the rest), left out (the
smallest thing that cannot be used) or refused (it would teach or score something wrong: nothing is
written), is counted by kind, and listed with image id, file and value in PREFIX.report.txt. More
than 1 % of the objects or images left out is refused too, unless --on_error=skip is given. All
that can be known without decoding images is known before anything is written. docs/data.md has
the whole rule.

Several machines that see the same folders convert a set together: each gets the same command with a
part of the shards, --shards=0:64, --shards=64:128 and so on, in any order, at once or one after the
other. Whichever ends last writes the manifest and the report of all; the bytes are those of one
conversion.

Images with an EXIF orientation are turned upright, unless the annotations refer to the pixels as
they are stored; which of the two, their size tells, or else what the other images of the set show,
or --exif. docs/images.md says how images are read.
"""

import os
import pathlib
import sys
import time
from typing import TYPE_CHECKING

from absl import flags

if not __package__:  # run as a file: neither its package nor the project's is known yet
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    __package__ = "data_prep"

from mrcnn_tf.console import command_line, start_tensorflow
from mrcnn_tf.data import schema

if TYPE_CHECKING:
    from . import conversion, shards

_ALWAYS_SHOWN = ("images", "images without objects", "annotations", "crowds")


def define_flags_of_records() -> None:
    """Define the flags that say what is converted, and into what."""
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("image_dir", None, "Folder of the images.", required=True)
    flags.DEFINE_string("object_annotations_file", None, "COCO instances JSON.", required=True)
    flags.DEFINE_string(
        "output_file_prefix", None, "Records are written to PREFIX-?????-of-?????.tfrecord.",
        required=True,
    )  # fmt: skip
    flags.DEFINE_integer(
        "num_shards", 32, "Number of record files; at most one per image.", lower_bound=1
    )
    flags.DEFINE_bool("include_masks", True, "Whether records hold masks.")
    flags.DEFINE_enum(
        "mask_format", "rle", ["rle", "png"],
        "rle: run lengths of the object's own rectangle, small and fast. png: a full-image PNG per "
        "object, for Model Garden's decoder.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "min_keypoints", 0,
        "Images with fewer annotated keypoints are left out; 1 for training a Keypoint R-CNN.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_enum(
        "exif", "auto", ["auto", "apply", "ignore"],
        "apply: the annotations refer to images turned upright as their EXIF orientation says; "
        "ignore: to the pixels as they are stored; auto: see above.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "on_error", "fail", ["fail", "skip"],
        "What to do if more than 1 % of the objects or images cannot be used, see above.",
    )  # fmt: skip


def _define_flags() -> None:
    define_flags_of_records()
    flags.DEFINE_integer(
        "num_processes", None, "Worker processes; by default one per core.", lower_bound=1
    )
    flags.DEFINE_string(
        "shards", None, "Write a part of the shards: 0:64 are those from number 0 up to 63."
    )


def job_of_flags(num_processes: int) -> "conversion.Job":
    """Start TensorFlow, and return what the flags ask for.

    Raises:
      SystemExit: there is no such folder or file; its text says which.
    """
    # What lies on this machine is looked for before the seconds that TensorFlow's start takes.
    values = flags.FLAGS
    for flag, is_there in (
        ("image_dir", os.path.isdir),
        ("object_annotations_file", os.path.isfile),
    ):
        if "://" not in values[flag].value and not is_there(values[flag].value):
            sys.exit(f"error: --{flag}={values[flag].value}: not found")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    print("starting TensorFlow, which takes some seconds", flush=True)
    with start_tensorflow.quickly():
        from . import conversion

    return conversion.Job(
        values.image_dir,
        values.object_annotations_file,
        values.output_file_prefix,
        values.num_shards,
        values.mask_format if values.include_masks else None,
        num_processes,
        values.on_error == "skip",
        values.exif,
        min_keypoints=values.min_keypoints,
    )


def _part(text: str, num_shards: int) -> tuple[int, int]:
    """Read --shards.

    Raises:
      SystemExit: it is no part of the shards.
    """
    start, colon, stop = text.partition(":")
    is_part = colon and all(number == "" or number.isdecimal() for number in (start, stop))
    part = (int(start or 0), int(stop or num_shards)) if is_part else (0, 0)
    if not 0 <= part[0] < part[1] <= num_shards:
        sys.exit(
            f"error: --shards={text}: expected FROM:UP_TO, 0 <= FROM < UP_TO <= {num_shards} "
            "(--num_shards)"
        )
    return part


def main(_: list[str]) -> None:
    """Convert."""
    values = flags.FLAGS
    part = _part(values.shards, values.num_shards) if values.shards else None
    run(job_of_flags(values.num_processes or os.cpu_count() or 1)._replace(part=part))


def run(job: "conversion.Job", workers: "shards.Workers | None" = None) -> None:
    """Convert, and say what came of it.

    Args:
      job: what is to be converted.
      workers: who writes the shards; None for processes on this machine.

    Raises:
      SystemExit: it was refused, stopped or interrupted; the reason is its text.
    """
    import tensorflow as tf

    from . import conversion, report

    start = time.monotonic()
    try:
        summary = conversion.convert(job, workers)
        if not summary.missing:
            path = _report_path(job.prefix)
            report.write(path, summary.findings, summary.notes, summary.warnings)
    except conversion.RefusedError as error:
        report.print_examples(error.findings)
        skip = ". --on_error=skip leaves out what cannot be used" if error.can_skip else ""
        sys.exit(f"error: {'; '.join(error.reasons)}: nothing was written{skip}")
    except conversion.StoppedError as error:
        report.print_examples(error.findings)
        skip = ", or give --on_error=skip, which leaves such images out" if error.can_skip else ""
        sys.exit(
            f"error: {error}. What is written is kept: mend these files and type the command "
            f"again{skip}"
        )
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except tf.errors.OpError as error:
        sys.exit(f"error: {error.message}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where this one stopped")
    if summary.missing:
        missing = ", ".join(f"--shards={first}:{stop}" for first, stop in summary.missing)
        print(
            f"this part is there, {time.monotonic() - start:.1f} s. Of {summary.num_shards:,} "
            f"shards these are not yet: {missing}. Whichever part ends last completes the set"
        )
        return
    _print_summary(job.prefix, summary, time.monotonic() - start)
    if summary.counts.get("annotations") == summary.counts.get("crowds"):
        return  # there is nothing to train on, which was said
    experiment = "maskrcnn_r50_fpn" if summary.counts.get("masks") else "fasterrcnn_r50_fpn"
    command_line.print_next(
        "where training and validation records are both there:\n"
        f"  python -m mrcnn_tf.train --experiment={experiment} --params_override=FIELDS\n"
        "with these ones in FIELDS, separated from other fields by a comma, as one of\n"
        f"  task.train_data.input_path='{job.prefix}-*.tfrecord'\n"
        f"  task.validation_data.input_path='{job.prefix}-*.tfrecord'"
    )


def _print_summary(prefix: str, summary: "conversion.Summary", seconds: float) -> None:
    """Print what is there now, and what was odd."""
    from . import report

    counts = summary.counts
    print(f"{prefix}-*.tfrecord: {summary.num_shards} shards, {seconds:.1f} s")
    others = sorted(key for key in counts if counts[key] and key not in _ALWAYS_SHOWN)
    for key in (*_ALWAYS_SHOWN, *others):
        print(f"  {counts.get(key, 0):>9,} {key}")
    folder = os.path.dirname(prefix)
    label_map = os.path.join(folder, schema.LABEL_MAP_FILE)
    print(f"  {summary.num_categories:>9,} categories in {label_map}")
    path = _report_path(prefix)
    report.print_written(path, summary.findings, summary.notes, summary.warnings)


def _report_path(prefix: str) -> str:
    return f"{prefix}.report.txt"


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
