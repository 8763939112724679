r"""Create the synthetic "shapes" data set: images and annotations in COCO's format.

    python data_prep/create_shapes_coco.py --output_dir=datasets/shapes

writes train/, val/ and annotations/instances_{train,val}.json. It is a small but honest problem
for instance segmentation: five classes, 1 to 8 objects of 12 to 100 pixels that hide each other
up to half, textures everywhere, objects cut by the border, in several parts or with holes, a few
crowd regions, a few images without any object. The same flags give the same bytes (with one
version of NumPy and Pillow); images of `train` and `val` come from different seeds.

With --num_categories=1203 the same images get so many categories and are annotated as LVIS is
(`shape_varieties.py`), for trying what LVIS costs.

Masks are exact: objects without holes are polygons along pixel edges, several if the object is in
several parts; objects with holes are uncompressed run lengths, as are crowds.

--keypoints adds a sixth class, "arrow", whose five corners are keypoints in the form of COCO's
person_keypoints files: visibility 2 where the corner is seen, 1 where something hides it, 0 (not
annotated) beyond the image.
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np
from absl import app, flags
from PIL import Image

if not __package__:  # run as a file: neither its package nor the project's is known yet
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    __package__ = "data_prep"

from mrcnn_tf.console import command_line
from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.data.pixel_polygons import mask_to_polygons
from mrcnn_tf.data.rle import run_lengths

from . import shape_scene, shape_varieties

# Ids with gaps, as COCO's own: class k is not category id k.
CATEGORY_IDS = (1, 2, 4, 7, 8)
_ARROW_ID = 11
_SEEN_WITHIN = 2.0  # pixels: a corner is seen if a pixel of its object is so near
_SPLITS = ("train", "val")
_FORMAT_VERSION = "1"  # raise it when the same flags give other images than before


def parse_image_size(text: str) -> tuple[int, int]:
    """Parse `--image_size` to (smallest, largest) side, pixels.

    Raises:
      ValueError: neither a number nor MIN-MAX, or outside 32..2048.
    """
    parts = text.split("-")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise ValueError(f"--image_size={text!r}: expected a number or MIN-MAX, e.g. 128 or 96-160")
    smallest, largest = int(parts[0]), int(parts[-1])
    if not 32 <= smallest <= largest <= 2048:
        raise ValueError(f"--image_size={text!r}: expected 32 <= MIN <= MAX <= 2048")
    return smallest, largest


def check_categories(num_categories: int, keypoints: bool) -> None:
    """Refuse categories that cannot be.

    Raises:
      ValueError: so few that a shape would have none, or arrows, which have no varieties.
    """
    num_shapes = len(shape_scene.CLASS_NAMES)
    if 0 < num_categories < num_shapes:
        raise ValueError(
            f"--num_categories={num_categories}: expected {num_shapes} or more, at least one for "
            "each shape, or 0 for the shapes alone"
        )
    if num_categories and keypoints:
        raise ValueError("--keypoints draws arrows, of which --num_categories knows no varieties")


def create_split(
    output_dir: pathlib.Path,
    split: str,
    num_images: int,
    image_size: tuple[int, int],
    seed: int,
    keypoints: bool = False,
    num_categories: int = 0,
) -> bool:
    """Write the images of one split, then its annotation file.

    Image i depends on the seed, the split and i only. The annotation file is written last: if
    it is there and tells the same settings, the split is complete and left alone.

    Args:
      output_dir: images go to `output_dir/split`.
      split: "train" or "val".
      num_images: how many.
      image_size: smallest and largest side, pixels.
      seed: of the data set.
      keypoints: whether there are arrows, with keypoints.
      num_categories: how many, annotated as LVIS is; 0 for the five shapes. See
        `check_categories`.

    Returns:
      Whether anything had to be written.
    """
    settings: dict[str, Any] = {
        "num_images": num_images,
        "image_size": list(image_size),
        "seed": seed,
    }
    class_names: tuple[str, ...] = shape_scene.CLASS_NAMES
    if keypoints:
        settings["keypoints"] = True
        class_names += (shape_scene.ARROW,)
    if num_categories:
        settings["num_categories"] = num_categories
    information = {"description": f"shapes {split}", "version": _FORMAT_VERSION, **settings}
    annotation_file = output_dir / "annotations" / f"instances_{split}.json"
    if annotation_file.exists():
        if json.loads(annotation_file.read_text("utf-8")).get("info") == information:
            return False
        annotation_file.unlink()
    image_dir = output_dir / split
    image_dir.mkdir(parents=True, exist_ok=True)
    varieties = shape_varieties.Varieties(num_categories, seed) if num_categories else None
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    progress = ProgressBar(f"  {split}:", num_images, "images")
    for k in range(num_images):
        rng = np.random.default_rng([seed, _SPLITS.index(split), k])
        height, width = (int(side) for side in rng.integers(*image_size, 2, endpoint=True))
        image, objects = shape_scene.draw_scene(rng, height, width, class_names)
        name = f"{k + 1:012d}.jpg"
        Image.fromarray(image).save(image_dir / name, quality=95, subsampling=0)
        images.append({"id": k + 1, "file_name": name, "height": height, "width": width})
        rows = []
        for scene_object in objects:
            row = annotate(scene_object, 0, k + 1)
            if class_names[scene_object.class_index] == shape_scene.ARROW:
                row |= annotate_corners(scene_object)
            rows.append(row)
        if varieties:
            rows, lists = _as_varieties(varieties, rows, objects, image, rng)
            images[-1] |= lists
        for row in rows:
            annotations.append(row | {"id": len(annotations) + 1})
        progress.add()
    progress.close()
    named = list(zip((*CATEGORY_IDS, _ARROW_ID), class_names, strict=False))
    if varieties:
        named = list(enumerate(varieties.names, start=1))
    content = {
        "info": information,
        "licenses": [],
        "categories": [
            {"id": i, "name": name, "supercategory": "shape", **_keypoints_of(name)}
            for i, name in named
        ],
        "images": images,
        "annotations": annotations,
    }
    annotation_file.parent.mkdir(exist_ok=True)
    partial = annotation_file.with_suffix(".partial")
    partial.write_text(json.dumps(content), "utf-8")
    partial.rename(annotation_file)
    return True


def _keypoints_of(class_name: str) -> dict[str, Any]:
    """Return what a category says of its keypoints; positions count from 1, as COCO's do."""
    if class_name != shape_scene.ARROW:
        return {}
    names = list(shape_scene.CORNERS_UV)
    skeleton = [[names.index(a) + 1, names.index(b) + 1] for a, b in shape_scene.SKELETON]
    return {"keypoints": names, "skeleton": skeleton}


def annotate_corners(scene_object: shape_scene.SceneObject) -> dict[str, Any]:
    """Return what the annotation of an arrow, or of a crowd of them, says of its keypoints."""
    keypoints: list[int] = []
    height, width = scene_object.mask.shape
    rows, columns = np.nonzero(scene_object.mask)
    corners = scene_object.corners
    for y, x in [] if corners is None else corners:
        if not (0 <= y < height and 0 <= x < width):
            keypoints += [0, 0, 0]
            continue
        distances = np.hypot(rows + 0.5 - y, columns + 0.5 - x)
        keypoints += [int(x), int(y), 2 if distances.min() <= _SEEN_WITHIN else 1]
    keypoints = keypoints or [0] * 3 * len(shape_scene.CORNERS_UV)
    num_keypoints = sum(visibility > 0 for visibility in keypoints[2::3])
    return {"keypoints": keypoints, "num_keypoints": num_keypoints}


def _as_varieties(
    varieties: shape_varieties.Varieties,
    rows: list[dict[str, Any]],
    objects: list[shape_scene.SceneObject],
    image: np.ndarray,
    rng: np.random.Generator,
) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
    """Give an image's annotations the categories of their varieties; also return its two lists.

    Of each category the first object is left, and no crowds, which LVIS has not.
    """
    rows = [
        row | {"category_id": varieties.category_id(scene_object, image)}
        for row, scene_object in zip(rows, objects, strict=True)
        if not scene_object.is_crowd
    ]
    first: dict[int, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["category_id"], row)
    return list(first.values()), varieties.lists(rng, [row["category_id"] for row in rows])


def annotate(
    scene_object: shape_scene.SceneObject, annotation_id: int, image_id: int
) -> dict[str, Any]:
    """Return the COCO annotation of one object; its box is the tight box of its mask."""
    mask = scene_object.mask
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    segmentation: Any = None if scene_object.is_crowd else mask_to_polygons(mask)
    if segmentation is None:
        counts = run_lengths(mask.ravel(order="F"))
        segmentation = {"size": list(mask.shape), "counts": counts.tolist()}
    top, left = int(rows[0]), int(columns[0])
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": (*CATEGORY_IDS, _ARROW_ID)[scene_object.class_index],
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "area": int(mask.sum()),
        "iscrowd": int(scene_object.is_crowd),
        "segmentation": segmentation,
    }


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("output_dir", None, "Folder to write to.", required=True)
    flags.DEFINE_integer("num_train", 1000, "Images for training.", lower_bound=0)
    flags.DEFINE_integer("num_val", 100, "Images for validation.", lower_bound=0)
    flags.DEFINE_string(
        "image_size", "128", "Side of the images in pixels, or MIN-MAX: each side drawn from there."
    )
    flags.DEFINE_integer(
        "num_categories", 0, "Categories, annotated as LVIS is; 0: the five shapes.", lower_bound=0
    )
    flags.DEFINE_integer("seed", 0, "Seed of everything.", lower_bound=0)
    flags.DEFINE_bool("keypoints", False, "Draw arrows too, whose corners are keypoints.")


def main(_: list[str]) -> None:
    """Create both splits."""
    values = flags.FLAGS
    try:
        image_size = parse_image_size(values.image_size)
        check_categories(values.num_categories, values.keypoints)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    output_dir = pathlib.Path(values.output_dir)
    for split, num_images in zip(_SPLITS, (values.num_train, values.num_val), strict=True):
        written = create_split(
            output_dir,
            split,
            num_images,
            image_size,
            values.seed,
            values.keypoints,
            values.num_categories,
        )
        print(f"{output_dir / split}: {num_images} images{'' if written else ', already there'}")


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
