"""Makes films: shapes that move, a tone, any container, codec, time or turn."""

import math
import pathlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

RATE = 10  # frames per second
SAMPLE_RATE = 48000
HEIGHT, WIDTH = 96, 128
RED, GREEN = (220, 30, 30), (30, 200, 30)


def picture(rectangles: dict, hw: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Return uint8 [h, w, 3]: {colour: (y1, x1, y2, x2)} on grey."""
    pixels = np.full((*hw, 3), 90, np.uint8)
    for color, (y1, x1, y2, x2) in rectangles.items():
        pixels[y1:y2, x1:x2] = color
    return pixels


def moving(k: int) -> np.ndarray:
    """A red rectangle that goes right and a green one that goes left, 2 pixels a frame."""
    red, green = (10, 10 + 2 * k, 40, 40 + 2 * k), (50, 90 - 2 * k, 80, 120 - 2 * k)
    return picture({RED: red, GREEN: green})


def make(
    path: pathlib.Path,
    frame: Callable[[int], np.ndarray] = moving,
    *,
    count: int = 20,
    video: str = "libx264",
    pixel_format: str = "yuv420p",
    audio: str | None = "aac",
    ticks: Sequence[int] | None = None,
    rotation: tuple[Any, ...] | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    video_options: dict[str, str] | None = None,
) -> str:
    """Write a film of `count` frames at RATE, with a tone of the same length; return its path.

    `ticks` are the frames' times in units of 1 / RATE, `rotation` is for `set_display_rotation`.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(video, rate=RATE, options=video_options or {})
        stream.height, stream.width = frame(0).shape[:2]
        stream.pix_fmt = pixel_format
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(*rotation)
        tone = None if audio is None else container.add_stream(audio, rate=SAMPLE_RATE)
        for k in range(count):
            shown = av.VideoFrame.from_ndarray(frame(k), "rgb24")
            shown.pts, shown.time_base = (k if ticks is None else ticks[k]), Fraction(1, RATE)
            container.mux(stream.encode(shown))
            if tone is not None:
                container.mux(tone.encode(_tone(k)))
        container.mux(stream.encode(None))
        if tone is not None:
            container.mux(tone.encode(None))
    return str(path)


def _tone(k: int) -> av.AudioFrame:
    """A tenth of a second of 440 Hz."""
    length = SAMPLE_RATE // RATE
    seconds = (np.arange(length) + k * length) / SAMPLE_RATE
    samples = (np.sin(2 * math.pi * 440 * seconds) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[np.newaxis], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = (
        SAMPLE_RATE,
        k * length,
        Fraction(1, SAMPLE_RATE),
    )
    return frame


def pictures(path: str) -> list[np.ndarray]:
    """Decode a film: uint8 [h, w, 3] each, as they are stored."""
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def times(path: str) -> list[float]:
    """Times of a film's frames in seconds, as they are in the file."""
    with av.open(path) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def sound(path: str) -> list[tuple[float, bytes]]:
    """(time in seconds, content) of a film's packets of sound."""
    with av.open(path) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets]
