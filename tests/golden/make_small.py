"""Thin a recording out until it may be committed: fewer picked values, the image as PNG.

python tests/golden/make_small.py FOLDER/maskrcnn_r50_fpn_torchvision.npz tests/golden/data
python tests/golden/make_small.py FOLDER/backbones/efficientnet_lite0_timm.npz tests/golden/data

One of a backbone has no shapes, and its image is that of the first.
"""

import io
import json
import pathlib
import sys

import numpy as np
from PIL import Image

PICKED = 48  # values of each large tensor
FIRST = 8  # rows of what is recorded for the first RoIs or detections
FIRST_ROWS = ("class_logits_first", "box_deltas_first", "mask_logits_of_class")


def main(source: str, folder: str) -> None:
    """Write the small recording and the shapes beside it."""
    file = pathlib.Path(source)
    arrays = dict(np.load(file))
    if json.loads(str(arrays["meta"]))["source"] == "timm":
        _write_backbone(arrays, pathlib.Path(folder, file.name))
        return
    png = io.BytesIO()
    Image.fromarray(arrays.pop("image")).save(png, "PNG", optimize=True)
    arrays["image_png"] = np.frombuffer(png.getvalue(), np.uint8)
    for key in arrays:
        if key.endswith(("/index", "/value")):
            arrays[key] = arrays[key][:PICKED]
        elif key in FIRST_ROWS:
            arrays[key] = arrays[key][:FIRST]
    np.savez_compressed(pathlib.Path(folder, file.name), **arrays)
    name = f"{file.stem}_shapes.json"
    shapes = json.loads(file.with_name(name).read_text())
    pathlib.Path(folder, name).write_text(json.dumps(shapes, separators=(",", ":")) + "\n")


def _write_backbone(arrays: dict[str, np.ndarray], file: pathlib.Path) -> None:
    other = "maskrcnn_r50_fpn_torchvision.npz"
    with np.load(file.with_name(other)) as recording:
        image = np.asarray(Image.open(io.BytesIO(recording["image_png"].tobytes())))
    if not np.array_equal(image, arrays.pop("image")):
        raise ValueError(f"{file.name} was recorded on another image than {other}")
    picked = {k: v[:PICKED] for k, v in arrays.items() if k.endswith(("/index", "/value"))}
    np.savez_compressed(file, **arrays | picked, image_of=other)


if __name__ == "__main__":
    main(*sys.argv[1:])
