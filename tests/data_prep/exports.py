"""Tiny data sets as annotation tools export them, and their masks by another rasteriser.

Two pictures of 60 x 80 pixels; outlines have corners on pixel borders, so that which pixels they
hold is no matter of rounding: `mask_of` fills them with Pillow at four times the size.
"""

import base64
import io
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 60, 80
NAMES = ("apple", "red pear")

# Of each picture: (class, corners of each part).
OBJECTS: dict[str, list[tuple[int, list[list[tuple[int, int]]]]]] = {
    "a": [
        (0, [[(4, 4), (24, 4), (24, 20), (14, 20), (14, 12), (4, 12)]]),
        (1, [[(40, 8), (60, 8), (60, 40), (40, 40)]]),
        (1, [[(8, 30), (20, 30), (20, 50), (8, 50)]]),
    ],
    "b": [(0, [[(10, 10), (50, 10), (50, 50), (10, 50)]])],
}


def mask_of(parts, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Fill polygons whose corners are pixel borders: the middle of each pixel decides."""
    mask = np.zeros((height, width), bool)
    for corners in parts:
        large = Image.new("1", (4 * width, 4 * height))
        # Pillow colours the pixels that corners name, so outlines end half a fine pixel earlier.
        ImageDraw.Draw(large).polygon([(4 * x - 0.5, 4 * y - 0.5) for x, y in corners], fill=1)
        mask |= np.asarray(large)[2::4, 2::4]
    return mask


def masks_of(name: str) -> list[tuple[str, np.ndarray]]:
    """(class, mask) of each object of a picture."""
    return [(NAMES[k], mask_of(parts)) for k, parts in OBJECTS[name]]


def write_image(path: pathlib.Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def yolo_line(number: int, parts) -> str:
    values = [v for x, y in parts[0] for v in (x / WIDTH, y / HEIGHT)]
    return " ".join([str(number), *map(repr, values)])


def roboflow_yolo(folder: pathlib.Path) -> None:
    """Roboflow, "YOLOv8": parts with images/ and labels/ each, a list of names."""
    folder.mkdir(exist_ok=True)
    quoted = ", ".join(f"'{name}'" for name in NAMES)
    (folder / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
        f"nc: {len(NAMES)}\nnames: [{quoted}]\n\nroboflow:\n  workspace: w\n  version: 1\n"
    )
    (folder / "README.roboflow.txt").write_text("exported via roboflow.com\n")
    for seed, (name, part) in enumerate((("a", "train"), ("b", "valid"))):
        write_image(folder / part / "images" / f"{name}_jpg.rf.0123abcd.jpg", seed)
        labels = folder / part / "labels" / f"{name}_jpg.rf.0123abcd.txt"
        labels.parent.mkdir()
        labels.write_text("\n".join(yolo_line(k, parts) for k, parts in OBJECTS[name]))


def cvat_yolo(folder: pathlib.Path) -> None:
    """CVAT, "Ultralytics YOLO Segmentation 1.0": images/train, labels/train, names by number."""
    folder.mkdir(exist_ok=True)
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(NAMES))
    (folder / "data.yaml").write_text(f"names:\n{names}path: .\ntrain: train.txt\n")
    (folder / "train.txt").write_text("data/images/train/a.jpg\ndata/images/train/b.jpg\n")
    for seed, name in enumerate(OBJECTS):
        write_image(folder / "images" / "train" / f"{name}.jpg", seed)
        labels = folder / "labels" / "train" / f"{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("".join(yolo_line(k, parts) + "\n" for k, parts in OBJECTS[name]))


def label_studio_yolo(folder: pathlib.Path) -> None:
    """Label Studio, "YOLO with images": classes.txt and notes.json instead of data.yaml."""
    cvat_yolo(folder)
    for path in ("data.yaml", "train.txt"):
        (folder / path).unlink()
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    notes = {"categories": [{"id": 0, "name": NAMES[0]}], "info": {"version": "1.0"}}
    (folder / "notes.json").write_text(json.dumps(notes))


def labelme_shape(label: str, points, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    """A shape as labelme 5 writes it."""
    return {
        "label": label,
        "points": [list(map(float, point)) for point in points],
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    } | more


def labelme_file(image_path: str, shapes, **more: Any) -> dict[str, Any]:
    """A file as labelme 5 writes it."""
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    } | more


def png(mask: np.ndarray) -> str:
    """A mask as labelme puts it into its JSON: zeros and ones."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def labelme(folder: pathlib.Path) -> None:
    """labelme: JSON files in a folder of their own, paths as Windows writes them."""
    (folder / "json").mkdir(parents=True)
    for seed, (name, objects) in enumerate(OBJECTS.items()):
        write_image(folder / "images" / f"{name}.jpg", seed)
        shapes = [labelme_shape(NAMES[k], part) for k, parts in objects for part in parts]
        content = labelme_file(f"..\\images\\{name}.jpg", shapes)
        (folder / "json" / f"{name}.json").write_text(json.dumps(content), "utf-8")


def voc_palette() -> list[int]:
    """VOC's colour map, written out by its rule."""
    palette = []
    for n in range(256):
        colour, rest = [0, 0, 0], n
        for shift in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= ((rest >> channel) & 1) << shift
            rest >>= 3
        palette += colour
    return palette


def _pictures(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of objects and of classes."""
    objects = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes = np.zeros_like(objects)
    for k, (number, parts) in enumerate(OBJECTS[name], 1):
        objects[mask_of(parts)], classes[mask_of(parts)] = k, number + 1
    return objects, classes


def voc(folder: pathlib.Path) -> None:
    """Pascal VOC 2012: palette PNGs with a border of 255 around objects, VOC's own names."""
    for seed, name in enumerate(OBJECTS):
        write_image(folder / "JPEGImages" / f"{name}.jpg", seed)
        for sub, numbers in zip(
            ("SegmentationObject", "SegmentationClass"), _pictures(name), strict=True
        ):
            grown = np.pad(numbers > 0, 1)
            near = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
            numbers[near & (numbers == 0)] = 255
            picture = Image.fromarray(numbers)
            picture.putpalette(voc_palette())
            (folder / sub).mkdir(parents=True, exist_ok=True)
            picture.save(folder / sub / f"{name}.png")


def cvat_masks(folder: pathlib.Path) -> None:
    """CVAT, "Segmentation mask 1.1": pictures in colours, and their names in labelmap.txt."""
    colours = np.array(voc_palette()).reshape(256, 3).astype(np.uint8)
    of_classes = np.array([(0, 0, 0), (250, 50, 83), (36, 179, 83)], np.uint8)
    for seed, name in enumerate(OBJECTS):
        write_image(folder / "JPEGImages" / f"{name}.jpg", seed)
        objects, classes = _pictures(name)
        for sub, pixels in (
            ("SegmentationObject", colours[objects]),
            ("SegmentationClass", of_classes[classes]),
        ):
            (folder / sub).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / sub / f"{name}.png")
    lines = ["# label:color_rgb:parts:actions", f"{NAMES[0]}:250,50,83::", "background:0,0,0::"]
    lines.append(f"{NAMES[1]}:36,179,83::")
    (folder / "labelmap.txt").write_text("\n".join(lines) + "\n")
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text("a\nb\n")


def _coco(names: dict[str, str], first_id: int = 1, root: bool = False) -> dict[str, Any]:
    """COCO's content of the pictures named: {picture: file name}."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, file_name in names.items():
        row = {"id": len(images) + first_id, "file_name": file_name}
        images.append(row | {"height": HEIGHT, "width": WIDTH})
        for number, parts in OBJECTS[name]:
            xs, ys = zip(*[point for part in parts for point in part], strict=True)
            box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            annotations.append(
                {
                    "id": len(annotations) + first_id,
                    "image_id": images[-1]["id"],
                    "category_id": number + 1,
                    "bbox": box,
                    "area": int(mask_of(parts).sum()),
                    "segmentation": [[v for point in part for v in point] for part in parts],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": k + 1, "name": n, "supercategory": ""} for k, n in enumerate(NAMES)]
    if root:
        categories.insert(0, {"id": 0, "name": "fruits", "supercategory": "none"})
    return {"images": images, "annotations": annotations, "categories": categories}


def roboflow_coco(folder: pathlib.Path) -> None:
    """Roboflow, "COCO Segmentation": a file beside the images of each part; ids begin at 0."""
    for seed, (name, part) in enumerate((("a", "train"), ("b", "valid"))):
        file_name = f"{name}_jpg.rf.0123abcd.jpg"
        write_image(folder / part / file_name, seed)
        content = json.dumps(_coco({name: file_name}, 0, root=True))
        (folder / part / "_annotations.coco.json").write_text(content)


def cvat_coco(folder: pathlib.Path) -> None:
    """CVAT, "COCO 1.0": annotations/instances_default.json and images/."""
    (folder / "annotations").mkdir(parents=True)
    for seed, name in enumerate(OBJECTS):
        write_image(folder / "images" / "default" / f"{name}.jpg", seed)
    content = json.dumps(_coco({name: f"{name}.jpg" for name in OBJECTS}))
    (folder / "annotations" / "instances_default.json").write_text(content)


def label_studio_coco(folder: pathlib.Path) -> None:
    """Label Studio, "COCO with images": result.json and images/, a folder before names."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(OBJECTS):
        write_image(folder / "images" / f"3f2a1b9c-{name}.jpg", seed)
    content = _coco({name: f"images\\3f2a1b9c-{name}.jpg" for name in OBJECTS}, 0)
    for row in content["annotations"]:
        row["category_id"] -= 1
        row["ignore"] = 0
    for row in content["categories"]:
        row["id"] -= 1
    (folder / "result.json").write_text(json.dumps(content))
