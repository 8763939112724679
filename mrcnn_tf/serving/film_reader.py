"""Reads films and cameras frame by frame, and what lies between the frames: sound and subtitles.

Times are counted from where the film begins, which in its file need not be 0. A film that was
recorded on its side is turned upright, as players show it.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import tensorflow as tf

from mrcnn_tf.images import storage
from mrcnn_tf.serving import film_source

_CAMERA_FORMAT = "v4l2"  # how FFmpeg calls Linux's cameras
_MICROSECONDS = 1_000_000  # in which a container counts
_UNKNOWN = 2  # colour space, as H.264 numbers them
_HD_HEIGHT = 720  # from here on, a film that does not say which colour space it has is BT.709
_DEFAULT_RATE = Fraction(25)
_END_TOLERANCE = 0.5  # seconds by which what a file says of its length may be wrong


class Frame(NamedTuple):
    """A frame of a film.

    Attributes:
      number: of the frames that the film shows, from 0 on.
      time: seconds from the beginning of the film.
      ticks: the same in units of the film's `time_base`.
      pixels: uint8 [h, w, 3] RGB, upright.
      packets: sound and subtitles that lie before it in the file.
    """

    number: int
    time: float
    ticks: int
    pixels: np.ndarray
    packets: Sequence[av.Packet]


class FilmReader:
    """Reads a film.

    It is closed once nothing refers to it: a thread may still wait for a camera's next frame.

    Attributes:
      name: of the film.
      time_base: seconds per tick.
      rate: frames per second, on average.
      num_frames: as many as the file says it has, or should have by its length; None if unknown.
      copied: the streams of sound and subtitles.
      left_out: other streams, described.
      is_matroska: the file is Matroska or WebM.
      num_damaged: pieces of the film that could not be decoded, or not without fault, so far.
      broke_off: why the film ended early; "" if it did not.
      rest: once all frames were read, the packets behind the last one.
    """

    def __init__(self, source: film_source.Source, *, copy: bool = True):
        """Open it.

        Args:
          source: see `film_source.find`.
          copy: whether sound and subtitles are read too.

        Raises:
          ValueError: it is no film that can be read, or holds no pictures.
          OSError: the file or the camera is not there.
        """
        self.name = source.name
        self._container = _open(source)
        video = self._container.streams.best("video")
        if not isinstance(video, av.VideoStream):
            raise ValueError(f"{source.path}: the file holds no pictures")
        self._video = video
        self._video.thread_type = "AUTO"
        others = [stream for stream in self._container.streams if stream is not video]
        self.copied = [s for s in others if copy and _can_be_copied(s)]
        self.left_out = [described(stream) for stream in others if not _can_be_copied(stream)]
        self.is_matroska = "matroska" in self._container.format.name
        self.time_base: Fraction = video.time_base or 1 / _DEFAULT_RATE
        self.rate: Fraction = video.average_rate or video.guessed_rate or _DEFAULT_RATE
        self.num_frames = self._expected_frames()
        self.num_damaged = 0
        self.broke_off = ""
        self.rest: list[av.Packet] = []
        self._is_camera = source.is_camera
        # A camera's clock has run since the machine was started.
        self._start = max(0, self._container.start_time or 0)
        self._end = 0.0  # seconds, of the furthest packet

    def pixel_aspect(self, *, is_turned: bool) -> Fraction:
        """Return width / height of a pixel of the upright film."""
        aspect = self._video.sample_aspect_ratio or Fraction(1)
        return 1 / aspect if is_turned else aspect

    @property
    def stored_hw(self) -> tuple[int, int]:
        """(height, width) of the frames as they are stored."""
        return self._video.height, self._video.width

    def frames(self) -> Iterator[Frame]:
        """Read the film.

        What is damaged is decoded as far as it goes, counted, and the film goes on behind it.

        Yields:
          Its frames, by increasing time.
        """
        last_ticks = -1
        lost: list[av.Packet] = []  # that came with frames that could not be used
        step = max(1, round(1 / (self.rate * self.time_base)))
        for number, (packets, decoded) in enumerate(self._decoded()):
            ticks = last_ticks + step
            if decoded.pts is not None:
                ticks = max(last_ticks + 1, self._from_beginning(decoded.pts, self.time_base))
            last_ticks = ticks
            time = float(ticks * self.time_base)
            try:
                pixels = _upright_pixels(decoded)
            except av.FFmpegError:
                self.num_damaged += 1
                lost += packets
                continue
            yield Frame(number, time, ticks, pixels, [*lost, *packets])
            lost = []
        self._check_end()

    def to_beginning(self, packet: av.Packet) -> None:
        """Let a packet's times count from the beginning of the film."""
        for name in ("pts", "dts"):
            ticks = getattr(packet, name)
            if ticks is not None:
                setattr(packet, name, self._from_beginning(ticks, packet.time_base))

    def _from_beginning(self, ticks: int, time_base: Fraction) -> int:
        return ticks - round(Fraction(self._start, _MICROSECONDS) / time_base)

    def _decoded(self) -> Iterator[tuple[list[av.Packet], av.VideoFrame]]:
        """Yield each frame with the packets to be copied that lie before it."""
        waiting: list[av.Packet] = []
        for packet in self._packets():
            if packet is None or packet.stream is self._video:
                for frame in self._decode(packet):
                    yield waiting, frame
                    waiting = []
            elif packet.size:
                waiting.append(packet)
        self.rest = waiting

    def _packets(self) -> Iterator[av.Packet | None]:
        """Yield the packets of the film in the order of the file; None: its end."""
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.size:
                    ticks = self._from_beginning(packet.pts, packet.time_base)
                    end = (ticks + (packet.duration or 0)) * packet.time_base
                    self._end = max(self._end, float(end))
                if packet.size and (packet.stream is self._video or packet.stream in self.copied):
                    yield packet
        except av.FFmpegError as error:
            self.broke_off = reason(error)
        yield None

    def _decode(self, packet: av.Packet | None) -> Sequence[av.VideoFrame]:
        try:
            frames = self._video.decode(packet)
        except av.FFmpegError:
            self.num_damaged += 1
            return []
        self.num_damaged += sum(frame.is_corrupt for frame in frames)
        return frames

    def _expected_seconds(self) -> float | None:
        duration = self._container.duration
        return None if duration is None or duration <= 0 else duration / _MICROSECONDS

    def _expected_frames(self) -> int | None:
        if self._video.frames:
            return self._video.frames
        seconds = self._expected_seconds()
        return None if seconds is None else round(seconds * self.rate)

    def _check_end(self) -> None:
        """Note it if the film ended before the time that the file says."""
        expected = None if self._is_camera else self._expected_seconds()
        if expected is not None and self._end < expected - _END_TOLERANCE and not self.broke_off:
            self.broke_off = f"the file says that there are {expected:.1f} s"


def _open(source: film_source.Source) -> av.container.InputContainer:
    try:
        if storage.is_remote(source.path):
            return av.open(tf.io.gfile.GFile(source.path, "rb"), "r")
        return av.open(source.path, "r", _CAMERA_FORMAT if source.is_camera else None)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise OSError(f"{source.path}: {reason(error)}") from error
        why = f"{source.path}: cannot be read as a film: {reason(error)}"
        if storage.read(source.path, 8)[4:] == b"ftyp":
            why += "; an MP4 that was cut short has no index, without which nobody can read it"
        raise ValueError(why) from error


def _can_be_copied(stream: Any) -> bool:
    return stream.type in ("audio", "subtitle") and stream.codec_context is not None


def described(stream: Any) -> str:
    """Return what a stream is called in messages."""
    codec = "" if stream.codec_context is None else f", {stream.codec_context.name}"
    return f"stream {stream.index} ({stream.type}{codec})"


def reason(error: Exception) -> str:
    """Return FFmpeg's words for what went wrong, without the place in FFmpeg."""
    return getattr(error, "strerror", None) or str(error)


def _upright_pixels(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame as uint8 [h, w, 3] RGB, turned and mirrored as it is to be shown."""
    is_hd = frame.colorspace == _UNKNOWN and frame.height >= _HD_HEIGHT
    pixels = frame.to_ndarray(format="rgb24", src_colorspace="ITU709" if is_hd else None)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return pixels if matrix is None else upright(pixels, np.frombuffer(bytes(matrix), np.int32))


def upright(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn and mirror pixels as a display matrix says, by multiples of 90 degrees.

    Args:
      pixels: [h, w, 3].
      matrix: int [9], rows (a, b, u), (c, d, v), (x, y, w): the pixel (x, y) is shown at
        (a x + c y, b x + d y), up to a shift.

    Returns:
      [h, w, 3] or [w, h, 3].
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.swapaxes(0, 1)
        a, d = c, b
    pixels = pixels[:, ::-1] if a < 0 else pixels
    pixels = pixels[::-1] if d < 0 else pixels
    return np.ascontiguousarray(pixels)
