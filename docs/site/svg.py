"""Pictures with boxes over them, as SVG that follows the page: one file each, no script, no font.

Coordinates are pixels of the network input, y before x as everywhere; a panel is as many units wide
as its picture has pixels, and lines keep their width whatever it is shown at.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

# {what a box is: (colour, width in pixels of the screen, dashes)}. What differs in meaning differs
# in width or dashes, too.
_STROKES = {
    "object": ("#14803c", 3.0, ""),
    "positive": ("#b85c00", 2.0, ""),
    "negative": ("#1f55c8", 1.25, "3 2"),
    "found": ("#b3126f", 2.0, ""),
    "grid": ("#888888", 0.5, ""),
}


def panel(size_hw: tuple[float, float], title: str, marks: Sequence[str], details: str = "") -> str:
    """Return an SVG document in one line.

    Args:
      size_hw: height and width of what is shown.
      title: what it is, for those who read it and for those who have it read to them.
      marks: elements, the undermost first.
      details: what is to be seen there, for those who have it read to them.
    """
    height, width = size_hw
    words = f"<title>{_escape(title)}</title>"
    if details:
        words += f"<desc>{_escape(details)}</desc>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_number(width)} {_number(height)}"'
        f' role="img">{words}{"".join(marks)}</svg>'
    )


def picture(pixels: np.ndarray, box: Sequence[float] | np.ndarray, smooth: bool = True) -> str:
    """Return a picture stretched over a box.

    Args:
      pixels: uint8 [h, w], [h, w, 3] RGB or [h, w, 4] RGB and alpha.
      box: (y1, x1, y2, x2).
      smooth: whether it is interpolated, as a photo; otherwise each pixel can be seen.
    """
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, not {pixels.dtype}")
    buffer = io.BytesIO()
    is_photo = smooth and pixels.shape[2:] == (3,)  # which PNG makes five times as large
    kind = "jpeg" if is_photo else "png"
    Image.fromarray(pixels).save(buffer, kind, quality=92)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    rendering = "" if smooth else ' style="image-rendering:pixelated"'
    return (
        f'<image {_place(box)} preserveAspectRatio="none"{rendering} '
        f'href="data:image/{kind};base64,{content}"/>'
    )


def box(yxyx: Sequence[float] | np.ndarray, kind: str) -> str:
    """Return the outline of a box (y1, x1, y2, x2), in the stroke of its kind.

    A whole line has a white one below it, so that it can be seen on any picture.
    """
    colour, width, dashes = _STROKES[kind]
    line = f'<rect {_place(yxyx)} fill="none" vector-effect="non-scaling-stroke" '
    upper = f'{line}stroke="{colour}" stroke-width="{_number(width)}"'
    if dashes:
        return f'{upper} stroke-dasharray="{dashes}"/>'
    if kind == "grid":
        return f"{upper}/>"
    lower = f'{line}stroke="#ffffff" stroke-opacity="0.8" stroke-width="{_number(width + 2)}"/>'
    return f"<g>{lower}{upper}/></g>"


def dot(yx: Sequence[float] | np.ndarray, radius: float) -> str:
    """Return a dot at (y, x), white with a dark rim."""
    y, x = yx
    return (
        f'<circle cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}" fill="#ffffff" '
        'stroke="#000000" stroke-width="1" vector-effect="non-scaling-stroke"/>'
    )


def text(yx: Sequence[float] | np.ndarray, words: str, size: float) -> str:
    """Return words whose base line begins at (y, x), with a rim that parts them from a picture."""
    y, x = yx
    return (
        f'<text x="{_number(x)}" y="{_number(y)}" font-size="{_number(size)}" '
        'font-family="sans-serif" fill="#ffffff" stroke="#000000" stroke-width="0.18em" '
        f'paint-order="stroke">{_escape(words)}</text>'
    )


def heat(values: np.ndarray) -> np.ndarray:
    """Return values, float [h, w], from dark (the least) to bright (the greatest), uint8 [h, w, 3].

    Black over violet and orange to white: brightness grows along, so that it says the same without
    colour.
    """
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    stops = np.array([[0, 0, 0], [92, 26, 120], [222, 92, 46], [255, 255, 235]], float)
    at = np.linspace(0, 1, len(stops))
    channels = [np.interp(share, at, stops[:, k]) for k in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def tinted(mask: np.ndarray, colour: Sequence[int] = (214, 64, 159)) -> np.ndarray:
    """Return a mask, float [h, w] in 0..1, as a colour that is as opaque: uint8 [h, w, 4]."""
    pixels = np.empty([*mask.shape, 4], np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = np.rint(np.clip(mask, 0, 1) * 255)
    return pixels


def _place(box: Sequence[float] | np.ndarray) -> str:
    y1, x1, y2, x2 = (float(side) for side in box)
    x, y, width, height = map(_number, (x1, y1, x2 - x1, y2 - y1))
    return f'x="{x}" y="{y}" width="{width}" height="{height}"'


def _number(value: float) -> str:
    """At most two decimals: a hundredth of a pixel is not seen."""
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def _escape(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
