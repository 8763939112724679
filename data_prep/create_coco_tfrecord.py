r"""Convert a COCO folder to TFRecord files.

    python data_prep/create_coco_tfrecord.py \
      --image_dir=coco/train2017 \
      --object_annotations_file=coco/annotations/instances_train2017.json \
      --output_file_prefix=datasets/coco/train --num_shards=256

writes datasets/coco/train-00000-of-00256.tfrecord and so on, label_map.json beside them, and
train.manifest.json, by which an interrupted run continues: type the same command again. What a
record holds is said in mrcnn_tf/data/schema.py. The bytes do not depend on --num_processes.

Everything that is wrong with the input stops the conversion before anything is written, and is
listed with image id, file and value (broken pictures are met only on the way); --on_error=skip
leaves out the smallest thing possible instead, and writes what it left out to PREFIX.skipped.txt.
COCO's own train2017 needs it: two of its boxes have no area.
"""

import collections
import os
import pathlib
import sys
import time

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from data_prep import coco_input
from data_prep.coco_input import CocoInput
from data_prep.problems import Problem
from data_prep.progress import Progress
from mrcnn_tf.data import schema
from mrcnn_tf.data.label_map import LabelMap

_IMAGE_DIR = flags.DEFINE_string("image_dir", None, "Folder of the pictures.", required=True)
_ANNOTATIONS = flags.DEFINE_string(
    "object_annotations_file", None, "COCO instances JSON.", required=True
)
_PREFIX = flags.DEFINE_string(
    "output_file_prefix", None, "Records are written to PREFIX-?????-of-?????.tfrecord.",
    required=True,
)  # fmt: skip
_NUM_SHARDS = flags.DEFINE_integer(
    "num_shards", 32, "Number of record files; at most one per picture.", lower_bound=1
)
_INCLUDE_MASKS = flags.DEFINE_bool("include_masks", True, "Whether records hold masks.")
_MASK_FORMAT = flags.DEFINE_enum(
    "mask_format", "rle", ["rle", "png"],
    "rle: run lengths of the object's own rectangle, small and fast. png: a full-picture PNG per "
    "object, for Model Garden's decoder.",
)  # fmt: skip
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Worker processes; by default one per core.", lower_bound=1
)
_ON_ERROR = flags.DEFINE_enum(
    "on_error", "fail", ["fail", "skip"], "What to do about unusable input, see above."
)

_FORMAT_VERSION = 1  # raise it when the same input gives other records than before


def main(_: list[str]) -> None:
    """Convert."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        _convert(pathlib.Path(_IMAGE_DIR.value), pathlib.Path(_PREFIX.value))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where this one stopped")


def _convert(image_dir: pathlib.Path, prefix: pathlib.Path) -> None:
    annotations_file = pathlib.Path(_ANNOTATIONS.value)
    if not image_dir.is_dir():
        sys.exit(f"error: --image_dir={image_dir}: there is no such folder")
    if not annotations_file.is_file():
        sys.exit(f"error: --object_annotations_file={annotations_file}: there is no such file")
    from data_prep import shards  # imports TensorFlow, which takes seconds

    start = time.monotonic()
    with shards.WorkerPool(_NUM_PROCESSES.value or os.cpu_count() or 1) as pool:
        try:
            print(f"reading {annotations_file} ({_megabytes(annotations_file)})", flush=True)
            coco = coco_input.read(annotations_file, _INCLUDE_MASKS.value)
            _write_records(pool, coco, image_dir, prefix, start)
        except (ValueError, RuntimeError, shards.BadImageError) as error:
            hint = " (--on_error=skip leaves it out)" * isinstance(error, shards.BadImageError)
            sys.exit(f"error: {error}{hint}")


def _write_records(
    pool: "shards.WorkerPool",
    coco: CocoInput,
    image_dir: pathlib.Path,
    prefix: pathlib.Path,
    start: float,
) -> None:
    """Check the rest, write what is missing, say what was done."""
    from data_prep import manifest, shards

    coco, files_digest = coco_input.find_missing_files(coco, image_dir)
    if coco.problems and _ON_ERROR.value == "fail":
        _list_and_exit(coco.problems)
    if not coco.images:
        raise ValueError("there is no picture to convert")
    num_shards = min(_NUM_SHARDS.value, len(coco.images))
    mask_format = _MASK_FORMAT.value if _INCLUDE_MASKS.value else None
    made_from = {
        "format_version": _FORMAT_VERSION,
        "annotations_sha256": coco.sha256,
        "picture_names_and_sizes_sha256": files_digest,
        "num_shards": num_shards,
        "mask_format": mask_format,
        "on_error": _ON_ERROR.value,
    }
    done = manifest.open_manifest(prefix, made_from)
    _write_label_map(coco.label_map, prefix.parent / schema.LABEL_MAP_FILE)
    done.save()
    names = dict(zip(coco.label_map.ids, coco.label_map.names, strict=True))
    tasks = []
    for k in range(num_shards):
        # Every num_shards-th picture: a file's order, often by source or date, is spread.
        images = [
            (image, coco.objects.get(image.source_id, [])) for image in coco.images[k::num_shards]
        ]
        path = prefix.with_name(f"{prefix.name}-{k:05d}-of-{num_shards:05d}.tfrecord")
        tasks.append(
            shards.ShardTask(path, image_dir, images, names, mask_format, _ON_ERROR.value == "skip")
        )
    missing = [task for task in tasks if task.path.name not in done.shards]
    if len(missing) < num_shards:
        print(f"{num_shards - len(missing)} of {num_shards} shards are there already")
    num_left = sum(len(task.images) for task in missing)
    progress = Progress("writing", len(coco.images), "pictures", len(coco.images) - num_left)
    for task, summary in pool.write_shards(missing, progress.add):
        done.add(task.path.name, summary)
    progress.close()
    problems = coco.problems + [
        p for name in sorted(done.shards) for p in done.shards[name].problems
    ]
    counts: collections.Counter[str] = collections.Counter()
    for summary in done.shards.values():
        counts.update(summary.counts)
    _report(prefix, num_shards, counts, problems, coco.label_map, time.monotonic() - start)


def _write_label_map(label_map: LabelMap, path: pathlib.Path) -> None:
    """Write the label map, or make sure that the one that is there is the same.

    Raises:
      ValueError: it is another one.
    """
    text = label_map.to_json()
    if path.exists():
        if path.read_text("utf-8") != text:
            raise ValueError(
                f"{path}: the categories there are not those of {_ANNOTATIONS.value}. Records in "
                "one folder share one label map: choose another folder for --output_file_prefix"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)


def _list_and_exit(problems: list[Problem]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)
    kinds = collections.Counter(problem.kind for problem in problems)
    summary = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    sys.exit(
        f"error: {len(problems)} problems ({summary}). Nothing was written. "
        "--on_error=skip leaves out what cannot be used"
    )


def _report(
    prefix: pathlib.Path,
    num_shards: int,
    counts: collections.Counter[str],
    problems: list[Problem],
    label_map: LabelMap,
    seconds: float,
) -> None:
    """Print what there is now, and the next command; list what was left out in a file."""
    print(f"\n{prefix}-*.tfrecord: {num_shards} shards in {seconds:.1f} s")
    always = ("images", "images without objects", "annotations", "crowds")
    for key in always + tuple(sorted(set(counts) - set(always))):
        if counts[key] or key in always:
            print(f"  {counts[key]:>9,} {key}")
    print(f"  {len(label_map.ids):>9,} categories in {prefix.parent / schema.LABEL_MAP_FILE}")
    skipped_file = prefix.with_name(prefix.name + ".skipped.txt")
    skipped_file.unlink(missing_ok=True)
    if problems:
        lines = [f"{problem} -> {problem.remedy}\n" for problem in problems]
        skipped_file.write_text("".join(lines), "utf-8")
        print(f"{len(problems)} problems, listed in {skipped_file}:")
        kinds = collections.Counter((problem.kind, problem.remedy) for problem in problems)
        for (kind, remedy), count in kinds.most_common():
            print(f"  {count:>9,} {kind} -> {remedy}")
    print(
        "\nNext, to train on them:\n  python -m mrcnn_tf.train --experiment=maskrcnn_r50_fpn \\\n"
        f"    --params_override=task.train_data.input_path='{prefix}-*.tfrecord'"
    )


def _megabytes(path: pathlib.Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    app.run(main)
