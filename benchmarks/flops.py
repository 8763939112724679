"""Multiply-adds, times two, of every part of Mask R-CNN R50-FPN, by hand from its shapes.

Convolutions and matrix products only; norms, activations, RoIAlign, NMS and losses count nothing.
Backward, a convolution that trains costs its forward pass once more for the gradient of its
kernel, and once more for that of its input where anything below it trains.
"""

import dataclasses

PARTS = ("backbone", "pyramid", "rpn", "box head", "mask head")
_BLOCKS = (3, 4, 6, 3)  # of ResNet-50's stages 2 to 5
_ANCHORS = 3  # at every place
_CHANNELS = 256


@dataclasses.dataclass
class _Counter:
    """GFLOP of forward and backward pass by part, for so many images."""

    images: int
    forward: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    backward: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(PARTS, 0.0)
    )

    def convolution(
        self, part: str, places: int, taps: int, inputs: int, outputs: int,
        trains: bool = True, input_trains: bool = True,
    ) -> None:  # fmt: skip
        """Count one whose output has so many places per image."""
        gflop = 2e-9 * self.images * places * taps * inputs * outputs
        self.forward[part] += gflop
        self.backward[part] += gflop * (trains + input_trains)


def _half(size: int) -> int:
    return -(-size // 2)


def gflop(
    height: int, width: int, images: int = 1, *, rois: int, masks: int, classes: int = 91,
    stride_in_1x1: bool = False, freeze_at: int = 0,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Count one forward and one backward pass.

    Args:
      height: of the canvas.
      width: of the canvas.
      images: in the batch.
      rois: per image through the box head: 1000 at inference, 512 in training.
      masks: per image through the mask head, each for the mask of one class.
      classes: with background.
      stride_in_1x1: see `fields.Backbone`.
      freeze_at: see `fields.Backbone`.

    Returns:
      {"forward" or "backward": {part: GFLOP}}.
    """
    count = _Counter(images)
    height, width = _half(height), _half(width)
    trains = freeze_at < 1
    count.convolution("backbone", height * width, 49, 3, 64, trains, False)
    height, width = _half(height), _half(width)
    inputs, sizes = 64, []
    for level, blocks in zip(range(2, 6), _BLOCKS, strict=True):
        below, trains = trains, freeze_at < level
        inner = 64 * 2 ** (level - 2)
        for block in range(blocks):
            given = height * width
            if level > 2 and block == 0:
                height, width = _half(height), _half(width)
            out = height * width
            middle = out if stride_in_1x1 else given
            under = below if block == 0 else trains  # whether a gradient is wanted below
            count.convolution("backbone", middle, 1, inputs, inner, trains, under)
            count.convolution("backbone", out, 9, inner, inner, trains, trains)
            count.convolution("backbone", out, 1, inner, 4 * inner, trains, trains)
            if block == 0:
                count.convolution("backbone", out, 1, inputs, 4 * inner, trains, under)
            inputs = 4 * inner
        sizes.append((height, width, inputs, trains))
    for height, width, channels, below in sizes:
        count.convolution("pyramid", height * width, 1, channels, _CHANNELS, True, below)
        count.convolution("pyramid", height * width, 9, _CHANNELS, _CHANNELS)
    sizes.append((_half(height), _half(width), _CHANNELS, True))
    for height, width, *_ in sizes:
        count.convolution("rpn", height * width, 9, _CHANNELS, _CHANNELS)
        count.convolution("rpn", height * width, 1, _CHANNELS, 5 * _ANCHORS)
    count.convolution("box head", rois, 49, _CHANNELS, 1024)
    count.convolution("box head", rois, 1, 1024, 1024)
    count.convolution("box head", rois, 1, 1024, classes + 4 * (classes - 1))
    count.convolution("mask head", masks * 14 * 14, 4 * 9, _CHANNELS, _CHANNELS)
    count.convolution("mask head", masks * 14 * 14, 4, _CHANNELS, _CHANNELS)  # 2 x 2, stride 2
    count.convolution("mask head", masks * 28 * 28, 1, _CHANNELS, 1)
    return {"forward": count.forward, "backward": count.backward}
