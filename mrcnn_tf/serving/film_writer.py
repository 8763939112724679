"""Writes films: new frames, sound and subtitles copied as they are.

Times and sound keep their places: a frame is written at the time at which it was read, so films of
a variable frame rate stay such, and packets of sound and subtitles go from one file into the other
without being decoded. What is written is upright and says nothing of turning.
"""

import os
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from mrcnn_tf.serving.film_reader import FilmReader, Frame, described, reason

_BT709 = 1  # colour space, as H.264 numbers them
# Written so that a file is playable up to the last whole fragment even if the machine goes down;
# when it is closed, it becomes an ordinary MP4.
_MP4_OPTIONS = {
    "movflags": "hybrid_fragmented+delay_moov+frag_keyframe",
    "flush_packets": "1",
}
_MATROSKA_OPTIONS = {"flush_packets": "1"}
_SECONDS_PER_FRAGMENT = 2
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "20"}


class FilmWriter:
    """Writes a film: H.264 in MP4, or in Matroska if the film is, or MP4 cannot hold its sound.

    Attributes:
      path: of the film; it has this name once it is complete.
      incomplete_path: its name until then.
      left_out: streams that could not be taken along, described.
      num_refused: packets of sound and subtitles that could not be copied.
    """

    def __init__(self, stem: str, reader: FilmReader, frame_hw: tuple[int, int]):
        """Open it.

        Args:
          stem: path; ".mp4" or ".mkv" is added unless it ends so.
          reader: of the film whose sound is copied.
          frame_hw: (height, width) of the upright frames; odd ones become even, with their last
            row or column once more.

        Raises:
          OSError: it cannot be written.
        """
        self.num_refused = 0
        self._reader = reader
        self._is_turned = frame_hw != reader.stored_hw
        self._hw = (frame_hw[0] + frame_hw[0] % 2, frame_hw[1] + frame_hw[1] % 2)
        os.makedirs(os.path.dirname(stem) or ".", exist_ok=True)
        suffixes = (".mkv",) if reader.is_matroska else (".mp4", ".mkv")
        for suffix in suffixes:
            root = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
            self.path, self.incomplete_path = root + suffix, f"{root}.incomplete{suffix}"
            try:
                self._open(needs_all=suffix != suffixes[-1])
                break
            except (av.FFmpegError, ValueError) as error:
                if suffix == suffixes[-1] or isinstance(error, OSError):
                    why = f"{self.incomplete_path}: cannot be written: {reason(error)}"
                    raise OSError(why) from error
                os.remove(self.incomplete_path)
        self._is_open = True

    def _open(self, *, needs_all: bool) -> None:
        """Write the beginning of the file; raises if it cannot hold what it has to."""
        is_mp4 = self.incomplete_path.endswith(".mp4")
        options = _MP4_OPTIONS if is_mp4 else _MATROSKA_OPTIONS
        self._container = av.open(self.incomplete_path, "w", options=options)
        self._video = self._add_video()
        self.left_out: list[str] = []
        self._streams: dict[int, _CopiedStream] = {}
        for stream in self._reader.copied:
            try:
                added = self._container.add_stream_from_template(stream)
            except (av.FFmpegError, ValueError):
                if needs_all:
                    raise
                self.left_out.append(f"{described(stream)}: neither MP4 nor Matroska holds it")
                continue
            if stream.language:
                added.metadata["language"] = stream.language
            self._streams[stream.index] = _CopiedStream(stream, added)
        self._container.start_encoding()

    def write(self, frame: Frame, pixels: np.ndarray) -> None:
        """Write a frame, and the packets that lie before it.

        Args:
          frame: says when.
          pixels: uint8 [h, w, 3] RGB, shown instead of the frame's own.

        Raises:
          OSError: the disk is full, or fails.
        """
        try:
            shown = av.VideoFrame.from_ndarray(_with_even_edges(pixels), "rgb24")
            shown = shown.reformat(self._hw[1], self._hw[0], "yuv420p", dst_colorspace="ITU709")
            shown.pts, shown.time_base = frame.ticks, self._reader.time_base
            shown.pict_type = av.video.frame.PictureType.NONE
            self._container.mux(self._video.encode(shown))
        except av.FFmpegError as error:
            raise OSError(f"{self.incomplete_path}: {reason(error)}") from error
        self.copy(frame.packets)

    def copy(self, packets: Sequence[av.Packet]) -> None:
        """Write packets of sound and subtitles as they are."""
        for packet in packets:
            stream = self._streams.get(packet.stream.index)
            if stream is None:
                continue
            self._reader.to_beginning(packet)
            try:
                self._container.mux(stream.take(packet))
            except (av.FFmpegError, ValueError):  # times that go back, for one
                self.num_refused += 1

    def close(self) -> None:
        """End the film, so that it can be played; it keeps its provisional name.

        Raises:
          OSError: the disk is full, or fails.
        """
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._container.mux(self._video.encode(None))
            self._container.close()
        except av.FFmpegError as error:
            raise OSError(f"{self.incomplete_path}: {reason(error)}") from error

    def complete(self) -> None:
        """End the film and give it its name; raises as `close` does."""
        self.close()
        os.replace(self.incomplete_path, self.path)

    def _add_video(self) -> av.VideoStream:
        rate = self._reader.rate
        video = self._container.add_stream("libx264", rate=rate, options=_ENCODER_OPTIONS)
        video.height, video.width = self._hw
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.time_base = self._reader.time_base
        context.gop_size = max(1, round(_SECONDS_PER_FRAGMENT * rate))
        context.sample_aspect_ratio = self._reader.pixel_aspect(is_turned=self._is_turned)
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        return video


class _CopiedStream:
    """A stream of the written film whose packets come from the film that is read.

    AAC in broadcasts and camcorders' films has a header before each packet, which MP4 and Matroska
    want once, at the beginning.
    """

    def __init__(self, source: Any, target: Any):
        self._target = target
        has_headers = source.codec_context.name == "aac" and not source.codec_context.extradata
        self._filter = BitStreamFilterContext("aac_adtstoasc", source) if has_headers else None

    def take(self, packet: av.Packet) -> list[av.Packet]:
        """Return what is to be written for a packet."""
        packets = [packet] if self._filter is None else self._filter.filter(packet)
        for one in packets:
            one.stream = self._target
        return packets


def _with_even_edges(pixels: np.ndarray) -> np.ndarray:
    """Repeat the last row and column where their number is odd, which H.264 cannot hold."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, [(0, height % 2), (0, width % 2), (0, 0)], "edge")
