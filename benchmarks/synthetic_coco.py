"""Writes a COCO folder of any size, the same for the same numbers: for what is measured on files.

Pictures are smooth noise; a few hundred different JPEGs stand under as many names as wanted, by
hard links. Objects are star-shaped polygons of 8 to 40 corners, of 80 categories, boxes and areas
fitting, as many per image as a Poisson distribution has it.
"""

import json
import os
import pathlib

import numpy as np
from PIL import Image

CATEGORIES = 80


def write(
    folder: pathlib.Path,
    images: int,
    objects_per_image: float = 7.3,
    size: tuple[int, int] = (120, 160),
    pictures: int = 300,
    seed: int = 0,
) -> int:
    """Write `folder`/images and `folder`/annotations.json.

    Args:
      folder: is made.
      images: how many.
      objects_per_image: in the mean.
      size: (height, width) of every picture.
      pictures: how many different ones.
      seed: of everything.

    Returns:
      how many objects there are.
    """
    rng = np.random.default_rng(seed)
    names = _write_pictures(folder, images, size, min(pictures, images), rng)
    categories = [{"id": i + 1, "name": f"category {i + 1}"} for i in range(CATEGORIES)]
    objects = 0
    with open(folder / "annotations.json", "w", encoding="utf-8") as file:
        file.write('{"categories": ' + json.dumps(categories) + ',\n"images": [\n')
        for number, name in enumerate(names, 1):
            image = {"id": number, "file_name": name, "height": size[0], "width": size[1]}
            file.write((",\n" if number > 1 else "") + json.dumps(image))
        file.write('],\n"annotations": [\n')
        for number in range(1, images + 1):
            for _ in range(rng.poisson(objects_per_image)):
                objects += 1
                annotation = {"id": objects, "image_id": number} | _object(size, rng)
                file.write((",\n" if objects > 1 else "") + json.dumps(annotation))
        file.write("]}\n")
    return objects


def _write_pictures(
    folder: pathlib.Path,
    images: int,
    size: tuple[int, int],
    pictures: int,
    rng: np.random.Generator,
) -> list[str]:
    """Write the JPEGs; return the names of all images."""
    (folder / "images").mkdir(parents=True)
    (folder / "pictures").mkdir()
    for number in range(pictures):
        coarse = rng.integers(0, 256, [8, 12, 3], np.uint8)
        picture = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        picture.save(folder / "pictures" / f"{number}.jpg", quality=90)
    names = [f"{number:012}.jpg" for number in range(1, images + 1)]
    for number, name in enumerate(names):
        os.link(folder / "pictures" / f"{number % pictures}.jpg", folder / "images" / name)
    return names


def _object(size: tuple[int, int], rng: np.random.Generator) -> dict:
    """Draw one annotation, without its ids."""
    height, width = size
    corners = rng.integers(8, 41)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = np.exp(rng.uniform(np.log(4), np.log(min(size) / 2))) * rng.uniform(0.6, 1, corners)
    x = np.clip(rng.uniform(0, width) + radius * np.cos(angle), 0, width).round(2)
    y = np.clip(rng.uniform(0, height) + radius * np.sin(angle), 0, height).round(2)
    left, top = float(x.min()), float(y.min())
    across = max(round(float(x.max()) - left, 2), 0.01)
    down = max(round(float(y.max()) - top, 2), 0.01)
    area = abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    return {
        "category_id": int(rng.integers(1, CATEGORIES + 1)),
        "iscrowd": 0,
        "bbox": [left, top, across, down],
        "area": round(area, 2),
        "segmentation": [np.stack([x, y], 1).ravel().tolist()],
    }
