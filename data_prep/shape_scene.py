"""Draws one image of the synthetic "shapes" data set together with its exact masks.

Objects are painted one over the other, as things hide things in photos. An object's mask is what
can be seen of it: the pixels of which it covers at least half and that no later object covers.
"""

import dataclasses

import numpy as np
from PIL import Image

CLASS_NAMES = ("ellipse", "rectangle", "triangle", "star", "ring")
# One more class, on demand, whose corners are keypoints: left and right as seen along its flight.
ARROW = "arrow"
_WING_V, _TAIL_U = 0.1, 0.4  # where the wings end, how wide the tail is: see `_inside_shape`
CORNERS_UV = {
    "tip": (0.0, -1.0),
    "left_wing": (-1.0, _WING_V),
    "right_wing": (1.0, _WING_V),
    "left_tail": (-_TAIL_U, 1.0),
    "right_tail": (_TAIL_U, 1.0),
}
SKELETON = (
    *(("tip", "left_wing"), ("left_wing", "left_tail"), ("left_tail", "right_tail")),
    *(("right_tail", "right_wing"), ("right_wing", "tip")),
)

_MIN_SIDE, _MAX_SIDE = 12, 100  # longer side of the visible part's box, pixels
_MIN_VISIBLE = 0.5  # of the whole object's pixels; the image's border hides, too
_MAX_OBJECTS = 8
_EMPTY_RATE, _CROWD_RATE = 0.04, 0.06  # of all images
_SUPERSAMPLING = 3  # sub-pixels per pixel and axis, for smooth outlines
_STAR_INNER_RADIUS = 0.48  # notches of the star, its tips are at 1


@dataclasses.dataclass
class SceneObject:
    """One annotated thing.

    Attributes:
      class_index: position in `CLASS_NAMES`; behind them, an arrow.
      mask: bool [H, W], the visible pixels; of a crowd, those of all its members.
      full_area: pixels of the whole object, had nothing hidden any of it.
      is_crowd: many small objects of one class that are annotated together.
      corners: float64 [5, (y, x)], those of `CORNERS_UV`, pixels, perhaps outside; of arrows only.
    """

    class_index: int
    mask: np.ndarray
    full_area: int
    is_crowd: bool = False
    corners: np.ndarray | None = None


def draw_scene(
    rng: np.random.Generator, height: int, width: int, class_names: tuple[str, ...] = CLASS_NAMES
) -> tuple[np.ndarray, list[SceneObject]]:
    """Paint one random image.

    Args:
      rng: the only source of randomness.
      height: of the image, pixels, at least 32.
      width: likewise.
      class_names: what is drawn: `CLASS_NAMES`, or these and `ARROW`.

    Returns:
      image: uint8 [height, width, 3], RGB.
      objects: from back to front, at most 8; none in a few images.
    """
    image = _texture(rng, height, width, rng.uniform(40, 215, 3))
    objects: list[SceneObject] = []
    if rng.random() < _EMPTY_RATE:
        return _to_uint8(image), objects
    num_objects = int(rng.integers(1, _MAX_OBJECTS + 1))
    if rng.random() < _CROWD_RATE:
        objects.append(_paint_crowd(rng, image, class_names))
    attempts = 0
    while len(objects) < num_objects and attempts < 100:
        attempts += 1
        _try_to_add(rng, image, objects, class_names)
    return _to_uint8(image), objects


def _try_to_add(
    rng: np.random.Generator,
    image: np.ndarray,
    objects: list[SceneObject],
    class_names: tuple[str, ...],
) -> None:
    """Paint one more object and append it, unless it or what it hides would be seen too little."""
    sides = np.asarray(image.shape[:2])
    longest = min(_MAX_SIDE, 0.8 * sides.min())
    size = np.exp(rng.uniform(np.log(_MIN_SIDE), np.log(longest)))  # small ones are more frequent
    class_index = int(rng.integers(len(class_names)))
    coverage, corners = _shape(rng, class_names[class_index], size)
    centre = rng.uniform(0.06, 0.94, 2) * sides
    window, alpha = _place(coverage, centre, sides)
    mask = np.zeros(sides, bool)
    mask[window] = alpha >= 0.5
    full_area = int((coverage >= 0.5).sum())
    if not _seen_enough(mask, full_area):
        return
    if not all(_seen_enough(o.mask & ~mask, o.full_area) for o in objects):
        return
    for other in objects:
        other.mask &= ~mask
    if corners is not None:
        corners += _start(coverage, centre)
    objects.append(SceneObject(class_index, mask, full_area, corners=corners))
    colour = _contrasting_colour(rng, image[mask].mean(axis=0))
    _paint(image, window, alpha, _texture(rng, alpha.shape[0], alpha.shape[1], colour))


def _seen_enough(mask: np.ndarray, full_area: int) -> bool:
    """Tell whether the visible part is large enough to be annotated."""
    if mask.sum() < max(_MIN_VISIBLE * full_area, 1):
        return False
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    return bool(_MIN_SIDE <= longer <= _MAX_SIDE)


def _paint_crowd(
    rng: np.random.Generator, image: np.ndarray, class_names: tuple[str, ...]
) -> SceneObject:
    """Paint a heap of objects of one class, each too small to be annotated by itself."""
    sides = np.asarray(image.shape[:2])
    class_index = int(rng.integers(len(class_names)))
    spread = rng.uniform(0.08, 0.13) * sides.min()
    centre = rng.uniform(0.3, 0.7, 2) * sides
    union = np.zeros(sides, bool)
    for _ in range(int(rng.integers(10, 21))):
        coverage, _ = _shape(rng, class_names[class_index], rng.uniform(6, 10))
        member_centre = np.clip(rng.normal(centre, spread), 6, sides - 6)
        window, alpha = _place(coverage, member_centre, sides)
        paint = _texture(rng, alpha.shape[0], alpha.shape[1], rng.uniform(20, 235, 3))
        _paint(image, window, alpha, paint)
        union[window] |= alpha >= 0.5
    return SceneObject(class_index, union, int(union.sum()), is_crowd=True)


def _paint(
    image: np.ndarray, window: tuple[slice, slice], alpha: np.ndarray, paint: np.ndarray
) -> None:
    """Blend `paint` [h, w, 3] into a window of the image, in place."""
    image[window] += alpha[..., None] * (paint - image[window])


def _shape(
    rng: np.random.Generator, name: str, size: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a randomly turned shape: the covered share of each pixel, float32 [h, w].

    `size` is the longer side of the shape before turning, pixels; the shape's centre lies within
    half a pixel of the array's. Of an arrow also its corners, float64 [5, (y, x)], in the array.
    """
    aspect = {"rectangle": (0.3, 1.0), "ellipse": (0.5, 1.0), "triangle": (0.65, 1.0)}
    half_v = size / 2 * rng.uniform(*aspect.get(name, (0.85, 1.0)))
    half_u = size / 2
    reach = np.hypot(half_u, half_v) if name in ("rectangle", "triangle", ARROW) else half_u
    side = int(np.ceil(2 * reach)) + 1
    sub = (np.arange(side * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - side / 2
    shift_y, shift_x = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)
    dy = (sub - shift_y).astype(np.float32)[:, None]
    dx = (sub - shift_x).astype(np.float32)[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    u = (cosine * dx + sine * dy) / np.float32(half_u)
    v = (cosine * dy - sine * dx) / np.float32(half_v)
    inside = _inside_shape(name, u, v, hole=rng.uniform(0.45, 0.65))
    blocks = inside.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING)
    coverage = blocks.mean(axis=(1, 3), dtype=np.float32)
    if name != ARROW:
        return coverage, None
    corner_u, corner_v = np.array(list(CORNERS_UV.values())).T * [[half_u], [half_v]]
    y = float(sine) * corner_u + float(cosine) * corner_v + shift_y + side / 2
    x = float(cosine) * corner_u - float(sine) * corner_v + shift_x + side / 2
    return coverage, np.stack([y, x], axis=1)


def _inside_shape(name: str, u: np.ndarray, v: np.ndarray, hole: float) -> np.ndarray:
    """Tell which points of the shape's own frame, where it fills [-1, 1] x [-1, 1], are in it."""
    if name == "ellipse":
        return u**2 + v**2 <= 1
    if name == "rectangle":
        return np.maximum(np.abs(u), np.abs(v)) <= 1
    if name == "triangle":  # base at v = 1, apex at (0, -1)
        return (v <= 1) & (2 * np.abs(u) <= v + 1)
    if name == ARROW:  # flies to v = -1; a tail between the wings
        head = (v <= _WING_V) & (np.abs(u) * (1 + _WING_V) <= v + 1)
        return head | ((v >= _WING_V) & (v <= 1) & (np.abs(u) <= _TAIL_U))
    if name == "ring":
        squared_radius = u**2 + v**2
        return (squared_radius <= 1) & (squared_radius >= hole**2)
    # Star: fold the plane to one half of one ray; inside is left of the edge from tip to notch.
    ray = 2 * np.pi / 5
    angle = np.abs(np.mod(np.arctan2(v, u) + ray / 2, ray) - ray / 2)
    x, y = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    notch_x, notch_y = _STAR_INNER_RADIUS * np.cos(ray / 2), _STAR_INNER_RADIUS * np.sin(ray / 2)
    return (notch_x - 1) * y - notch_y * (x - 1) >= 0


def _place(
    coverage: np.ndarray, centre_yx: np.ndarray, sides_hw: np.ndarray
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Centre an array somewhere in the image and cut off what sticks out.

    Returns:
      The window of the image that it covers, and the part of `coverage` that lies there.
    """
    start = _start(coverage, centre_yx)
    y1, x1 = np.maximum(start, 0)
    y2, x2 = np.minimum(start + coverage.shape, sides_hw)
    top, left = start
    return (slice(y1, y2), slice(x1, x2)), coverage[y1 - top : y2 - top, x1 - left : x2 - left]


def _start(coverage: np.ndarray, centre_yx: np.ndarray) -> np.ndarray:
    """Return the row and column of an array's first pixel in the image, perhaps outside."""
    return np.floor(centre_yx - np.asarray(coverage.shape) / 2).astype(int)


def _contrasting_colour(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    """Draw a colour, float64 [3], that stands out from what lies behind."""
    while True:
        colour = rng.uniform(25, 230, 3)
        if np.abs(colour - behind).max() > 60:
            return colour


def _texture(rng: np.random.Generator, height: int, width: int, colour: np.ndarray) -> np.ndarray:
    """Fill an image, float32 [height, width, 3] in 0..255, around a mean colour.

    A pattern (cloud, stripes, squares or slope) shifts the colour to and fro; a slow change of
    brightness and fine noise lie over it.
    """
    y, x = np.ogrid[:height, :width]
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    along = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
    across = (np.cos(angle) * y - np.sin(angle) * x).astype(np.float32)
    period = rng.uniform(5, 20)
    kind = rng.integers(4)
    if kind == 0:
        pattern = _clouds(rng, height, width, cells=8)
    elif kind == 1:
        pattern = np.sin(2 * np.pi * along / period + phase)
    elif kind == 2:
        pattern = np.sign(np.sin(2 * np.pi * along / period + phase)) * np.sign(
            np.sin(2 * np.pi * across / period + phase)
        )
    else:
        pattern = np.clip((along - along.mean()) / (0.5 * max(height, width)), -1, 1)
    shift = rng.normal(size=3)
    shift *= rng.uniform(8, 32) / np.linalg.norm(shift)
    brightness = rng.uniform(0, 14) * _clouds(rng, height, width, cells=3)
    paint = rng.standard_normal((height, width, 3), np.float32) * np.float32(rng.uniform(1, 6))
    paint += brightness[..., None].astype(np.float32) + colour.astype(np.float32)
    paint += pattern[..., None] * shift.astype(np.float32)
    return np.clip(paint, 0, 255, out=paint)


def _clouds(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Return smooth noise, float32 [height, width], about [-2, 2], of `cells` bumps a side."""
    grid = rng.normal(size=(cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
