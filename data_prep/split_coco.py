r"""Split a COCO file into training and validation.

    python data_prep/split_coco.py --images=photos --annotations=photos/annotations.json \
      --output_dir=photos/split

writes train.json and val.json; train.txt and val.txt, which list the image files for other commands
(`mrcnn_tf.predict --input=photos/split/val.txt`); and split.json, which says where each image went
and why. Images that show almost the same, and copies of one photo, stay on one side: what has been
learnt from is not to be scored on. Every class gets onto both sides if at least two such groups
have it. The split depends on the seed, the names, the pictures and the annotations, not on the
order of the file.

Every image and annotation of the file goes to one of the two, also those in which something is
odd: what becomes of it, the converter says. If nearly all images are alike (a fixed camera), they
are cut into stretches by name, which is said; scores are then better than they deserve.
"""

import json
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

if not __package__:  # run as a file: neither its package nor the project's is known yet
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    __package__ = "data_prep"

from mrcnn_tf.console import command_line, start_tensorflow

if TYPE_CHECKING:
    from mrcnn_tf.data.coco_data import CocoData, ImageEntry
    from mrcnn_tf.images.image_folder import ImageFolder

    from .grouping import Group

_SIDES = ("train", "val")
_NUM_STRETCHES = 20  # that a group is cut into which is too large for either side


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("images", None, "Folder of the images.", required=True)
    flags.DEFINE_string("annotations", None, "COCO JSON to split.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder to write to.", required=True)
    flags.DEFINE_float("val_fraction", 0.2, "Share of validation, between 0 and 1.")
    flags.DEFINE_integer("seed", 0, "Seed of the choice.", lower_bound=0)


def main(_: list[str]) -> None:
    """Split what the flags name."""
    values = flags.FLAGS
    for flag, is_there in (("images", os.path.isdir), ("annotations", os.path.isfile)):
        if not is_there(values[flag].value):
            sys.exit(f"error: --{flag}={values[flag].value}: not found")
    if not 0 < values.val_fraction < 1:
        sys.exit(f"error: --val_fraction={values.val_fraction}: expected a number between 0 and 1")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with start_tensorflow.quickly():
        import tensorflow  # noqa: F401
    try:
        split(
            values.images, values.annotations, values.output_dir, values.val_fraction, values.seed
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def split(
    images: str, annotations: str, output_dir: str, val_fraction: float, seed: int
) -> dict[str, Any]:
    """Split a COCO file, and say how.

    Args:
      images: folder of the images.
      annotations: COCO JSON.
      output_dir: folder to write to.
      val_fraction: share of the images and of each class's objects for validation.
      seed: of the choice.

    Returns:
      The content of split.json.

    Raises:
      ValueError: the file cannot be read or used, or has less than two images.
    """
    import numpy as np

    from mrcnn_tf.data import coco_json
    from mrcnn_tf.data.findings import Level
    from mrcnn_tf.images.image_folder import ImageFolder

    from . import grouping, manifest, splitting

    folder = ImageFolder(images)
    coco = coco_json.read(annotations, size_of=folder.size_of)
    refused = [finding for finding in coco.findings if finding.level == Level.REFUSED]
    if refused:
        raise ValueError(f"{annotations}: {refused[0]}")
    content = json.loads(coco_json.read_text(annotations)[0])
    entries = _images_of(content)
    hashes, unread = _hashes(entries, images, folder)
    names = [entry.file_name for entry in entries]
    groups = grouping.group(names, hashes)
    groups, warnings = _cut(groups, names, val_fraction)
    if len(groups) < 2:
        raise ValueError(f"{annotations}: {len(entries)} images cannot be split")
    counts = _counts(groups, entries, coco)
    sizes = np.array([len(group.members) for group in groups])
    chosen = splitting.choose_validation(counts, sizes, val_fraction, seed)
    sides = [_SIDES[k in chosen] for k in range(len(groups))]
    record = {
        "annotations": os.path.abspath(annotations),
        "annotations_sha256": coco.sha256,
        "val_fraction": val_fraction,
        "seed": seed,
        "classes": _classes(counts, sides, coco),
        "warnings": warnings,
        "grouped_by_name_alone": unread,
        "images": _where(groups, sides, entries),
    }
    _write(content, record, entries, output_dir)
    unread_names = {entries[k].file_name for k, seen in enumerate(hashes) if seen is None}
    _write_lists(record, images, folder, unread_names, output_dir)
    manifest.write_text(os.path.join(output_dir, "split.json"), json.dumps(record, indent=1))
    _print(record, coco, output_dir)
    return record


def _images_of(content: dict[str, Any]) -> "list[ImageEntry]":
    """List the images, those too in which something is wrong, by name and id."""
    from mrcnn_tf.data import coco_values
    from mrcnn_tf.data.coco_data import ImageEntry

    entries = []
    for row in content["images"]:
        identifier = coco_values.identifier(row.get("id"))
        key = coco_values.short(row.get("id")) if identifier is None else identifier
        entries.append(ImageEntry(key, coco_values.text(row.get("file_name")) or "", 0, 0))
    return sorted(entries, key=lambda entry: (entry.file_name, entry.source_id))


def _hashes(
    entries: "list[ImageEntry]", images: str, folder: Any
) -> tuple[list[int | None], list[str]]:
    """Return what the images show, and which cannot be read."""
    from mrcnn_tf.console.progress_bar import ProgressBar
    from mrcnn_tf.images import near_duplicates, reading

    progress = ProgressBar("looking at images", len(entries), "images")
    hashes: list[int | None] = []
    unread = []
    for entry in entries:
        name = folder.find(entry.file_name)
        try:
            if name is None:
                raise reading.UnusableImageError(f"no such file in {images}")
            hashes.append(near_duplicates.hash_of(os.path.join(images, name)))
        except reading.UnusableImageError as error:
            hashes.append(None)
            unread.append(f"{entry.where}: {error}")
        progress.add()
    progress.close()
    return hashes, unread


def _cut(
    groups: "list[Group]", names: list[str], val_fraction: float
) -> "tuple[list[Group], list[str]]":
    """Cut a group into stretches if what is left is not half of what validation is to have."""
    from .grouping import Group

    largest = max(groups, key=lambda group: len(group.members))
    num_images, rest = len(names), len(names) - len(largest.members)
    if len(largest.members) < 2 or rest >= val_fraction * num_images / 2:
        return groups, []
    members = sorted(largest.members, key=lambda place: names[place])
    num_stretches = min(_NUM_STRETCHES, len(members))
    bounds = [k * len(members) // num_stretches for k in range(num_stretches + 1)]
    why = [*largest.why, "cut into stretches by name"]
    stretches = [Group(members[a:b], why) for a, b in zip(bounds, bounds[1:], strict=False)]
    warning = (
        f"{len(members):,} of {num_images:,} images are alike ({', '.join(largest.why)}), too many "
        f"for one side: cut into {num_stretches} stretches by name. Images of both sides show the "
        "same, so scores will be better than on images of another place"
    )
    return [group for group in groups if group is not largest] + stretches, [warning]


def _counts(groups: "list[Group]", entries: "list[ImageEntry]", coco: "CocoData") -> Any:
    """Return the objects by group and class, int [groups, classes]."""
    import numpy as np

    column = {identifier: k for k, identifier in enumerate(coco.label_map.ids)}
    counts = np.zeros([len(groups), len(column)], int)
    for k, group in enumerate(groups):
        for place in group.members:
            for found in coco.objects.get(entries[place].source_id, ()):
                counts[k, column[found.category_id]] += 1
    return counts


def _classes(counts: Any, sides: list[str], coco: "CocoData") -> dict[str, dict[str, Any]]:
    """Say of each class how many objects and groups it has on each side, and why on one only."""
    classes: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(coco.label_map.names):
        row: dict[str, Any] = {}
        for side in _SIDES:
            ours = [
                count for count, where in zip(counts[:, k], sides, strict=True) if where == side
            ]
            row[side] = int(sum(ours))
            row[f"{side}_groups"] = sum(bool(count) for count in ours)
        num_groups = row["train_groups"] + row["val_groups"]
        if not (row["train"] and row["val"]):
            row["why_on_one_side"] = (
                "no objects" if not num_groups
                else "all in one group of images" if num_groups == 1
                else "its groups are needed where they are for other classes"
            )  # fmt: skip
        classes[name] = row
    return classes


def _where(
    groups: "list[Group]", sides: list[str], entries: "list[ImageEntry]"
) -> list[dict[str, Any]]:
    """Say of each image where it went, and with which group."""
    rows = [
        {
            "file_name": entries[place].file_name,
            "id": entries[place].image_id,
            "side": side,
            "group": number,
            "why": f"with its group: {', '.join(group.why)}" if group.why else "alone",
        }
        for number, (group, side) in enumerate(zip(groups, sides, strict=True))
        for place in group.members
    ]
    return sorted(rows, key=lambda row: (row["file_name"], str(row["id"])))


def _write(
    content: dict[str, Any],
    record: dict[str, Any],
    entries: "list[ImageEntry]",
    output_dir: str,
) -> None:
    """Write the two annotation files."""
    from mrcnn_tf.data import coco_values

    from . import manifest

    def key_of(value: Any) -> str:
        identifier = coco_values.identifier(value)
        return coco_values.short(value) if identifier is None else str(identifier)

    side_of = {str(row["id"]): row["side"] for row in record["images"]}
    order = {entry.source_id: k for k, entry in enumerate(entries)}
    others = {key: value for key, value in content.items() if key not in ("images", "annotations")}
    images = sorted(content["images"], key=lambda row: order[key_of(row.get("id"))])
    for side in _SIDES:
        part = {
            **others,
            "images": [row for row in images if side_of[key_of(row.get("id"))] == side],
            # One of an image that is not there goes to training, where it is met as such.
            "annotations": [
                row
                for row in content["annotations"]
                if side_of.get(key_of(row.get("image_id")), "train") == side
            ],
        }
        manifest.write_text(os.path.join(output_dir, f"{side}.json"), json.dumps(part))


def _write_lists(
    record: dict[str, Any],
    images: str,
    folder: "ImageFolder",
    unread: set[str],
    output_dir: str,
) -> None:
    """Write the paths of the image files that can be read, one per line."""
    from . import manifest

    for side in _SIDES:
        names = [row["file_name"] for row in record["images"] if row["side"] == side]
        names = [name for name in names if name not in unread]
        found = [name for name in map(folder.find, names) if name]
        above = images if "://" in images else os.path.abspath(images)
        paths = [os.path.join(above, name) for name in found]
        manifest.write_text(os.path.join(output_dir, f"{side}.txt"), "\n".join([*paths, ""]))


def _print(record: dict[str, Any], coco: "CocoData", output_dir: str) -> None:
    """Print what came of it."""
    rows = record["images"]
    for side in _SIDES:
        ours = [row for row in rows if row["side"] == side]
        num_objects = sum(row[side] for row in record["classes"].values())
        num_groups = len({row["group"] for row in ours})
        path = os.path.join(output_dir, f"{side}.json")
        print(f"{path}: {len(ours):,} images in {num_groups:,} groups, {num_objects:,} objects")
    for name, row in record["classes"].items():
        if "why_on_one_side" in row:
            where = "train" if row["train"] else "val" if row["val"] else "neither"
            print(f"  class {name!r}: {where} only, {row['why_on_one_side']}")
    together = sum(row["why"] != "alone" for row in rows)
    print(f"{together:,} images are alike with others, or copies, and stay together: split.json")
    unread = record["grouped_by_name_alone"]
    if unread:
        unread = [f"{len(unread):,} images cannot be read, {unread[0]} for one: grouped by name"]
    for warning in [*record["warnings"], *unread]:
        print(f"warning: {warning}", file=sys.stderr)


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
