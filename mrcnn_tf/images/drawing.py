"""Draws detections and ground truth: translucent masks with outlines, boxes, names and scores.

Everything is drawn with whole pixels of the image: where a mask ends on the drawing, it ends in
the data. Small images are enlarged by a whole factor first, so that labels fit and single
pixels of the mask can be seen.
"""

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

# Okabe and Ito's colours, which colour-blind readers can tell apart, then the darker ones of Paul
# Tol's muted scheme. Beyond twelve they repeat; the label says what an object is.
_PALETTE = np.array(
    [
        (230, 159, 0),  # orange
        (86, 180, 233),  # sky blue
        (0, 158, 115),  # bluish green
        (240, 228, 66),  # yellow
        (0, 114, 178),  # blue
        (213, 94, 0),  # vermilion
        (204, 121, 167),  # reddish purple
        (68, 170, 153),  # teal
        (136, 34, 85),  # wine
        (153, 153, 51),  # olive
        (51, 34, 136),  # indigo
        (204, 102, 119),  # rose
    ],
    np.uint8,
)
_GREY = np.array((150, 150, 150), np.uint8)
_MASK_OPACITY = 0.45
_MIN_LONG_EDGE = 480  # images are enlarged by the smallest whole factor that reaches this
_MAX_CELL_EDGE = 1024  # contact sheets shrink larger images to this
_GAP = 8  # pixels between images that are put together
_MIN_KEYPOINT_SCORE = 0.05  # weaker keypoints are not drawn (Detectron2)
_LONGEST_NAME = 40  # characters of a label
# Fonts of Linux, macOS and Windows with more letters than Pillow's own, which ends with ASCII.
_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: Sequence[dict[str, Any] | np.ndarray | None] | None = None,
    names: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
    *,
    color_ids: Sequence[int] | None = None,
    is_crowd: Sequence[bool] | None = None,
    enlarge: bool = True,
    keypoints: Sequence[np.ndarray | None] | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
) -> np.ndarray:
    """Draw objects into a copy of an image.

    Args:
      image: uint8 [h, w, 3] RGB.
      boxes: float [n, (y1, x1, y2, x2)], pixels of the image, continuous coordinates.
      masks: per object a COCO RLE or a bool array, both [h, w], or None.
      names: per object.
      scores: per object, 0..1.
      color_ids: per object, picks its colour: category ids give every category its own colour,
        whatever the image. By default every object of the image has another one.
      is_crowd: per object; crowd regions are hatched in grey.
      enlarge: whether small images are enlarged.
      keypoints: per object float [K, (y, x, score)], pixels of the image, continuous coordinates;
        those with a score up to 0.05 are not drawn. Or None.
      skeleton: positions, from 0 on, of keypoints that are joined by lines.

    Returns:
      uint8 [h * k, w * k, 3] RGB, where the whole factor k is 1 unless the image is small.

    Raises:
      ValueError: lists of different lengths, a mask of another size, no RGB uint8 image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 [h, w, 3], not {image.dtype} {list(image.shape)}")
    count = len(boxes)
    given = {"masks": masks, "names": names, "scores": scores, "keypoints": keypoints}
    for name, values in {**given, "color_ids": color_ids, "is_crowd": is_crowd}.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{count} boxes but {len(values)} {name}")
    factor = _enlargement(image) if enlarge else 1
    canvas = _enlarge(image, factor)
    line_width = max(2, round(max(canvas.shape[:2]) / 400))
    colors = colors_of(range(count) if color_ids is None else color_ids)
    crowd = np.zeros(count, bool) if is_crowd is None else np.asarray(is_crowd, bool)
    colors = np.where(crowd[:, None], _GREY, colors)

    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    order = np.argsort(-areas, kind="stable")  # large first, so that small ones stay visible
    for k in order:
        pixels = None if masks is None else _mask_pixels(masks[k], image.shape)
        if pixels is not None:
            _blend_mask(canvas, pixels, colors[k], factor, line_width, hatched=bool(crowd[k]))

    drawing = Image.fromarray(canvas)
    draw = ImageDraw.Draw(drawing)
    for k in order:
        _draw_box(draw, boxes[k] * factor, colors[k], line_width)
    for k in order:
        points = None if keypoints is None else keypoints[k]
        if points is not None:
            scaled = points * [factor, factor, 1]
            _draw_keypoints(draw, scaled, skeleton, colors[k], line_width)
    placed: list[tuple[int, int, int, int]] = []
    for k in order[::-1]:
        text = _label(names[k] if names else "", scores[k] if scores is not None else None)
        if text:
            _draw_label(draw, drawing.size, text, boxes[k] * factor, colors[k], placed)
    return np.asarray(drawing)


def colors_of(color_ids: Sequence[int]) -> np.ndarray:
    """Return the colour of each id, uint8 [n, (r, g, b)]; after twelve they repeat."""
    return _PALETTE[np.asarray(color_ids, np.int64) % len(_PALETTE)]


def draw_side_by_side(
    left: np.ndarray,
    right: np.ndarray,
    titles: tuple[str, str] = ("ground truth", "prediction"),
) -> np.ndarray:
    """Put two drawn images beside each other, each under its title.

    Args:
      left: uint8 [h1, w1, 3] RGB.
      right: uint8 [h2, w2, 3] RGB.
      titles: of the two.

    Returns:
      uint8 [H, w1 + gap + w2, 3] RGB, H the height of the taller one plus the titles' strip.
    """
    long_edge = max(*left.shape[:2], *right.shape[:2])
    halves = [
        _under(half, title, long_edge) for half, title in zip((left, right), titles, strict=True)
    ]
    height = max(half.height for half in halves)
    width = left.shape[1] + _GAP + right.shape[1]
    sheet = Image.new("RGB", (width, height), "white")
    for x, half in zip((0, left.shape[1] + _GAP), halves, strict=True):
        sheet.paste(half, (x, 0))
    return np.asarray(sheet)


def with_title(image: np.ndarray, title: str) -> np.ndarray:
    """Put a drawn image under a title: uint8 [h, w, 3] RGB -> uint8 [h + strip, w, 3] RGB."""
    return np.asarray(_under(image, title, max(image.shape[:2])))


def _under(image: np.ndarray, title: str, long_edge: int) -> Image.Image:
    """The image under a strip with its title, in letters that fit an image of this edge."""
    font = _font(long_edge)
    strip = round(font.size * 1.6)
    sheet = Image.new("RGB", (image.shape[1], strip + image.shape[0]), "white")
    sheet.paste(Image.fromarray(image), (0, strip))
    ImageDraw.Draw(sheet).text((_GAP, strip // 2), title, "black", font, anchor="lm")
    return sheet


def contact_sheet(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Put images into a grid, row by row, on white.

    Args:
      images: uint8 [h, w, 3] RGB each, sizes may differ; larger ones are shrunk.
      columns: images in a row.

    Returns:
      uint8 [H, W, 3] RGB.

    Raises:
      ValueError: there is no image.
    """
    if not images:
        raise ValueError("contact_sheet needs at least one image")
    cells = [Image.fromarray(image) for image in images]
    for cell in cells:
        cell.thumbnail((_MAX_CELL_EDGE, _MAX_CELL_EDGE), Image.Resampling.LANCZOS)
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    cell_width = max(cell.width for cell in cells) + _GAP
    cell_height = max(cell.height for cell in cells) + _GAP
    size = (columns * cell_width + _GAP, rows * cell_height + _GAP)
    sheet = Image.new("RGB", size, "white")
    for k, cell in enumerate(cells):
        row, column = divmod(k, columns)
        sheet.paste(cell, (_GAP + column * cell_width, _GAP + row * cell_height))
    return np.asarray(sheet)


def _enlargement(image: np.ndarray) -> int:
    return max(1, -(-_MIN_LONG_EDGE // max(image.shape[:2])))


def _enlarge(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Return a copy in which each pixel of [h, w, ...] is factor x factor pixels."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _mask_pixels(
    mask: dict[str, Any] | np.ndarray | None, image_shape: tuple[int, ...]
) -> np.ndarray | None:
    """Return the mask as bool [h, w], None if there is no mask pixel."""
    if mask is None:
        return None
    if isinstance(mask, dict):
        if isinstance(mask["counts"], list):
            mask = coco_mask.frPyObjects(mask, *mask["size"])
        pixels = coco_mask.decode(mask).astype(bool)
    else:
        pixels = np.asarray(mask, bool)
    if pixels.shape != image_shape[:2]:
        raise ValueError(f"mask of {list(pixels.shape)} in an image of {list(image_shape[:2])}")
    return pixels if pixels.any() else None


def _blend_mask(
    canvas: np.ndarray,
    pixels: np.ndarray,
    color: np.ndarray,
    factor: int,
    line_width: int,
    hatched: bool,
) -> None:
    """Tint the mask's pixels on the canvas and outline them inside their border."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    y1, x1, y2, x2 = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    inside = _enlarge(pixels[y1:y2, x1:x2], factor)
    region = canvas[y1 * factor : y2 * factor, x1 * factor : x2 * factor]
    tinted = inside
    if hatched:
        stripe = 4 * line_width
        y, x = np.ogrid[: inside.shape[0], : inside.shape[1]]
        tinted = inside & ((y + x) // stripe % 2 == 0)
    mixed = region[tinted] * (1 - _MASK_OPACITY) + color * _MASK_OPACITY
    region[tinted] = np.round(mixed).astype(np.uint8)
    region[inside & ~_eroded(inside, line_width)] = color


def _eroded(inside: np.ndarray, steps: int) -> np.ndarray:
    """Return the pixels that are more than `steps` pixels away from the nearest one outside."""
    core = np.pad(inside, steps)
    for _ in range(steps):
        shifted = [np.roll(core, shift, axis) for axis in (0, 1) for shift in (-1, 1)]
        core = core & np.logical_and.reduce(shifted)
    return core[steps:-steps, steps:-steps]


def _draw_box(
    draw: ImageDraw.ImageDraw, box: np.ndarray, color: np.ndarray, line_width: int
) -> None:
    """Draw the pixels just inside the box; a box without area is one pixel wide."""
    y1, x1, y2, x2 = (int(round(float(value))) for value in box)
    corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # Pillow's second corner is inside
    draw.rectangle(corners, outline=tuple(color.tolist()), width=line_width)


def _draw_keypoints(
    draw: ImageDraw.ImageDraw,
    keypoints: np.ndarray,
    skeleton: Sequence[tuple[int, int]],
    color: np.ndarray,
    line_width: int,
) -> None:
    """Join keypoints [K, (y, x, score)] as the skeleton says, and put a dot on each."""
    ink = tuple(color.tolist())
    places = [(float(x), float(y)) for y, x, _ in keypoints]
    is_shown = keypoints[:, 2] > _MIN_KEYPOINT_SCORE
    for a, b in skeleton:
        if is_shown[a] and is_shown[b]:
            draw.line((*places[a], *places[b]), ink, line_width)
    for (x, y), shown in zip(places, is_shown, strict=True):
        if shown:
            dot = (x - line_width, y - line_width, x + line_width, y + line_width)
            draw.ellipse(dot, "white", ink, max(1, line_width // 2))


def _label(name: str, score: float | None) -> str:
    name = " ".join(name.split())  # one line
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 3] + "..."
    return " ".join(part for part in (name, "" if score is None else f"{score:.2f}") if part)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    text: str,
    box: np.ndarray,
    color: np.ndarray,
    placed: list[tuple[int, int, int, int]],
) -> None:
    """Write the label above the box, or where it hides no other label and stays in the image."""
    text, font = _font_for(text, max(size))
    pad = max(1, round(font.size / 6))
    left, top, right, bottom = font.getbbox(text, anchor="la")
    width, height = round(right - left) + 2 * pad, round(font.size * 1.15) + pad
    y1, x1, y2, _ = (int(round(float(value))) for value in box)
    x = max(0, min(x1, size[0] - width))
    places = [(x, y) for y in (y1 - height, y1, y2 - height, y2) if 0 <= y <= size[1] - height]
    places = places or [(x, max(0, min(y1, size[1] - height)))]
    free = [p for p in places if not any(_overlap((*p, width, height), q) for q in placed)]
    x, y = (free or places)[0]
    placed.append((x, y, width, height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=tuple(color.tolist()))
    luminance = np.dot(color, (0.299, 0.587, 0.114))
    ink = "black" if luminance > 110 else "white"
    draw.text((x + pad - left, y + height // 2), text, ink, font, anchor="lm")


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Whether two (x, y, width, height) rectangles share a pixel."""
    return abs(2 * (a[0] - b[0]) + a[2] - b[2]) < a[2] + b[2] and (
        abs(2 * (a[1] - b[1]) + a[3] - b[3]) < a[3] + b[3]
    )


def _font(long_edge: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font in a size that fits the image."""
    font = ImageFont.load_default(size=max(12, round(long_edge / 55)))
    assert isinstance(font, ImageFont.FreeTypeFont)  # all Pillow wheels come with FreeType
    return font


def _font_for(text: str, long_edge: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a font that has the text's letters; where there is none, the text in plain letters.

    ASCII is written in Pillow's own font, so that drawings look the same on every machine.
    """
    font = _font(long_edge)
    if text.isascii():
        return text, font
    system_font = _system_font(font.size)
    if system_font:
        return text, system_font
    letters = unicodedata.normalize("NFKD", text)  # accents apart
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode(), font


@functools.lru_cache
def _system_font(size: float) -> ImageFont.FreeTypeFont | None:
    for name in _SYSTEM_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:  # not on this machine
            continue
    return None
