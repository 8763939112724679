"""The data sets of docs/results.md: drawn, converted, and found again."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMAGES = {"train": 2000, "val": 300}
TINY_IMAGES = {"train": 24, "val": 8}
RARE, RARE_IMAGES = "star", 16  # of "uneven"
_SHARDS = 4


def shapes(folder: pathlib.Path, tiny: bool, *flags: str) -> None:
    """Images of five classes; with flags of create_shapes_coco.py others."""
    _draw(folder, tiny, *flags)
    for split in IMAGES:
        _convert(folder / split, _annotations(folder, split), folder / "records" / split)


def arrows(folder: pathlib.Path, tiny: bool) -> None:
    """Images of six classes, of which one has keypoints."""
    shapes(folder, tiny, "--keypoints")


def lvis(folder: pathlib.Path, tiny: bool) -> None:
    """The images of "shapes" with 1,203 categories, annotated as LVIS's are."""
    shapes(folder, tiny, "--num_categories=1203")


def uneven(folder: pathlib.Path, tiny: bool) -> None:
    """The same, but only few of the training images have one of the classes."""
    of_all = folder.with_name("shapes")
    _draw(of_all, tiny)
    chosen = folder / "instances_train.json"
    folder.mkdir(parents=True, exist_ok=True)
    found = json.loads(_annotations(of_all, "train").read_text("utf-8"))
    chosen.write_text(json.dumps(with_few(found, RARE, 4 if tiny else RARE_IMAGES)), "utf-8")
    _convert(of_all / "train", chosen, folder / "records" / "train")
    _convert(of_all / "val", _annotations(of_all, "val"), folder / "records" / "val")


COMMANDS = {"shapes": shapes, "arrows": arrows, "lvis": lvis, "uneven": uneven}


def make(name: str, folder: pathlib.Path, tiny: bool) -> None:
    """Make a data set, unless it is there.

    Args:
      name: entry of `COMMANDS`.
      folder: of it; that of another one, of which it is made, lies beside it.
      tiny: a few images of 64 x 64.

    Raises:
      RuntimeError: a command failed.
    """
    last = f"{_SHARDS - 1:05d}-of-{_SHARDS:05d}.tfrecord"  # written when its split is whole
    if not all((folder / "records" / f"{split}-{last}").exists() for split in IMAGES):
        print(f"making {folder}", flush=True)
        COMMANDS[name](folder, tiny)


def paths(records: pathlib.Path) -> dict[str, str]:
    """Return the fields of an experiment that say where its records are."""
    return {
        "task.train_data.input_path": f"{records}/train-*.tfrecord",
        "task.validation_data.input_path": f"{records}/val-*.tfrecord",
    }


def with_few(coco: dict, category: str, images: int) -> dict:
    """Return a COCO file without most of the images that have an object of a category.

    Args:
      coco: as it is read.
      category: its name.
      images: so many of them stay, the first ones.
    """
    [rare] = [c["id"] for c in coco["categories"] if c["name"] == category]
    with_it = {a["image_id"] for a in coco["annotations"] if a["category_id"] == rare}
    dropped = {*sorted(with_it)[images:]}
    return coco | {
        "images": [image for image in coco["images"] if image["id"] not in dropped],
        "annotations": [a for a in coco["annotations"] if a["image_id"] not in dropped],
    }


def _draw(folder: pathlib.Path, tiny: bool, *flags: str) -> None:
    images = TINY_IMAGES if tiny else IMAGES
    _run(
        "create_shapes_coco",
        f"--output_dir={folder}",
        *(f"--num_{split}={count}" for split, count in images.items()),
        f"--image_size={64 if tiny else 128}",
        *flags,
    )


def _annotations(folder: pathlib.Path, split: str) -> pathlib.Path:
    return folder / "annotations" / f"instances_{split}.json"


def _convert(images: pathlib.Path, annotations: pathlib.Path, records: pathlib.Path) -> None:
    _run(
        "create_coco_tfrecord",
        f"--image_dir={images}",
        f"--object_annotations_file={annotations}",
        f"--output_file_prefix={records}",
        f"--num_shards={_SHARDS}",
    )


def _run(name: str, *flags: str) -> None:
    """Run a command of data_prep/.

    Raises:
      RuntimeError: with what it said.
    """
    command = [sys.executable, str(ROOT / "data_prep" / f"{name}.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed: " + "\n".join(done.stderr.splitlines()[-5:]))
