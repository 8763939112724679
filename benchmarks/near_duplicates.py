"""How far apart altered copies of photos are, and how far different photos (CPU).

python benchmarks/near_duplicates.py --images='photos/*.jpg' [--images='more/*.jpg']

All photos given must differ. Prints one JSON line: the least distances between two of them in bits,
and of each alteration the median, the 95th percentile and the most, with the share within
`near_duplicates.MAX_DISTANCE`.
"""

import argparse
import io
import itertools

import network  # noqa: F401  # puts the project on the path
import numpy as np
import timing
from PIL import Image, ImageEnhance, ImageFilter

from mrcnn_tf.images import finding, near_duplicates, reading

_SIDE = 640  # pixels of the longer edge; distances do not depend on it


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Encode and decode."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut fractions of the size off."""
    w, h = image.size
    return image.crop((int(w * left), int(h * top), int(w * (1 - right)), int(h * (1 - bottom))))


# Of each, two pictures that are to be found alike.
ALTERATIONS = {
    "JPEG of quality 30": lambda im: (im, jpeg(im, 30)),
    "a quarter of the size": lambda im: (im, im.resize((im.width // 4, im.height // 4))),
    "stretched to a square": lambda im: (im, im.resize((320, 320))),
    "brightness x 0.7": lambda im: (im, ImageEnhance.Brightness(im).enhance(0.7)),
    "brightness x 1.3": lambda im: (im, ImageEnhance.Brightness(im).enhance(1.3)),
    "contrast x 0.7": lambda im: (im, ImageEnhance.Contrast(im).enhance(0.7)),
    "shades of gray": lambda im: (im, im.convert("L").convert("RGB")),
    "blur of 3 pixels": lambda im: (im, im.filter(ImageFilter.GaussianBlur(3))),
    "2 % cut off each side": lambda im: (im, crop(im, 0.02, 0.02, 0.02, 0.02)),
    "5 % cut off one side": lambda im: (im, crop(im, 0.05, 0, 0, 0)),
    "5 % cut off each side": lambda im: (im, crop(im, 0.05, 0.05, 0.05, 0.05)),
    "camera moved by 1 % both ways": lambda im: (
        crop(im, 0.01, 0.01, 0, 0),
        crop(im, 0, 0, 0.01, 0.01),
    ),
    "camera moved by 2 % both ways": lambda im: (
        crop(im, 0.02, 0.02, 0, 0),
        crop(im, 0, 0, 0.02, 0.02),
    ),
    "camera moved by 4 % both ways": lambda im: (
        crop(im, 0.04, 0.04, 0, 0),
        crop(im, 0, 0, 0.04, 0.04),
    ),
}


def distance(a: Image.Image, b: Image.Image) -> int:
    """In bits."""
    first, second = (near_duplicates.hash_of(np.asarray(image)) for image in (a, b))
    return (first ^ second).bit_count()


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", action="append", required=True)
    args = parser.parse_args()
    # Photos of several folders may share a name.
    paths = [path for glob in args.images for _, path in finding.find_images([glob]).images]
    hashes = [near_duplicates.hash_of(path) for path in paths]
    between = sorted((a ^ b).bit_count() for a, b in itertools.combinations(hashes, 2))
    altered: dict[str, list[int]] = {name: [] for name in ALTERATIONS}
    for path in paths:
        image = Image.fromarray(reading.read(path).pixels)
        image.thumbnail((_SIDE, _SIDE))
        for name, alter in ALTERATIONS.items():
            altered[name].append(distance(*alter(image)))
    limit = near_duplicates.MAX_DISTANCE
    found = {
        name: {
            "median": float(np.median(bits)),
            "p95": float(np.percentile(bits, 95)),
            "most": max(bits),
            "within": round(float(np.mean(np.array(bits) <= limit)), 3),
        }
        for name, bits in altered.items()
    }
    timing.print_line(
        benchmark="near_duplicates",
        contestant="ours",
        args=vars(args),
        photos=len(paths),
        pairs=len(between),
        least_distances=between[:5],
        max_distance=limit,
        altered=found,
    )


if __name__ == "__main__":
    main()
