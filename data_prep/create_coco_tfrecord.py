r"""Convert a COCO folder to TFRecord files.

    python data_prep/create_coco_tfrecord.py \
      --image_dir=coco/train2017 \
      --object_annotations_file=coco/annotations/instances_train2017.json \
      --output_file_prefix=datasets/coco/train --num_shards=256

writes datasets/coco/train-00000-of-00256.tfrecord and so on, label_map.json beside them, and
train.manifest.json, by which an interrupted run continues: type the same command again. What a
record holds is said in mrcnn_tf/data/schema.py. The bytes do not depend on --num_processes.

Everything that is wrong with the input stops the conversion before anything is written, and is
listed with image id, file and value (broken images are met only on the way); --on_error=skip
leaves out the smallest thing possible instead, and writes what it left out to PREFIX.skipped.txt.
COCO's own train2017 needs it: two of its boxes have no area.
"""

import collections
import os
import pathlib
import sys
import time

from absl import flags

if not __package__:  # run as a file: neither its package nor the project's is known yet
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    __package__ = "data_prep"

from mrcnn_tf import command_line
from mrcnn_tf.data import schema

from .problems import Problem

_ALWAYS_SHOWN = ("images", "images without objects", "annotations", "crowds")


def _define_flags() -> None:
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
        "num_processes", None, "Worker processes; by default one per core.", lower_bound=1
    )
    flags.DEFINE_enum(
        "on_error", "fail", ["fail", "skip"], "What to do about unusable input, see above."
    )


def main(_: list[str]) -> None:
    """Convert."""
    values = flags.FLAGS
    image_dir = pathlib.Path(values.image_dir)
    annotations_file = pathlib.Path(values.object_annotations_file)
    if not image_dir.is_dir():
        sys.exit(f"error: --image_dir={image_dir}: there is no such folder")
    if not annotations_file.is_file():
        sys.exit(f"error: --object_annotations_file={annotations_file}: there is no such file")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    print("starting TensorFlow, which takes some seconds", flush=True)
    from . import conversion, shards

    start = time.monotonic()
    job = conversion.Job(
        image_dir,
        annotations_file,
        pathlib.Path(values.output_file_prefix),
        values.num_shards,
        values.mask_format if values.include_masks else None,
        values.num_processes or os.cpu_count() or 1,
        values.on_error == "skip",
    )
    try:
        summary = conversion.convert(job)
    except conversion.RefusedError as error:
        _list_problems(error.problems)
        sys.exit("error: nothing was written. --on_error=skip leaves out what cannot be used")
    except shards.BadImageError as error:
        sys.exit(f"error: {error}. --on_error=skip leaves such images out")
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where this one stopped")
    _report(job.prefix, summary.num_shards, summary.num_categories, summary.counts, start)
    _report_skipped(job.prefix, summary.problems)
    print(
        "\nNext, where training and validation records are both there:\n"
        "  python -m mrcnn_tf.train --experiment=maskrcnn_r50_fpn --params_override=FIELDS\n"
        "with these ones in FIELDS, separated from other fields by a comma, as one of\n"
        f"  task.train_data.input_path='{job.prefix}-*.tfrecord'\n"
        f"  task.validation_data.input_path='{job.prefix}-*.tfrecord'"
    )


def _report(
    prefix: pathlib.Path,
    num_shards: int,
    num_categories: int,
    counts: dict[str, int],
    start: float,
) -> None:
    """Print what is there now."""
    print(f"{prefix}-*.tfrecord: {num_shards} shards, {time.monotonic() - start:.1f} s")
    others = sorted(key for key in counts if counts[key] and key not in _ALWAYS_SHOWN)
    for key in (*_ALWAYS_SHOWN, *others):
        print(f"  {counts.get(key, 0):>9,} {key}")
    print(f"  {num_categories:>9,} categories in {prefix.parent / schema.LABEL_MAP_FILE}")


def _report_skipped(prefix: pathlib.Path, problems: list[Problem]) -> None:
    """List in a file what was left out or mended, and print how often."""
    path = prefix.with_name(prefix.name + ".skipped.txt")
    path.unlink(missing_ok=True)
    if not problems:
        return
    path.write_text("".join(f"{p} -> {p.remedy}\n" for p in problems), "utf-8")
    print(f"{len(problems):,} problems, listed in {path}:")
    kinds = collections.Counter(f"{p.kind} -> {p.remedy}" for p in problems)
    for kind, count in kinds.most_common():
        print(f"  {count:>9,} {kind}")


def _list_problems(problems: list[Problem]) -> None:
    """Print all problems, then how many there are of each kind."""
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(problems):,} problems:", file=sys.stderr)
    for kind, count in collections.Counter(p.kind for p in problems).most_common():
        print(f"  {count:>9,} {kind}", file=sys.stderr)


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
