import growth
import numpy as np
from PIL import Image


def test_slopes_in_log_log():
    assert growth.slopes({100: 1.0, 200: 2.0, 800: 32.0}) == [1.0, 2.0]


def test_a_point_differs_from_the_base_in_its_axis_only():
    words = growth.command("train", {"classes": 1201}, 3)
    assert words == [
        "train_step.py", "--height=320", "--width=320", "--batch=1", "--objects=20",
        "--proposals=1000", "--classes=1201", "--rounds=3",
    ]  # fmt: skip
    assert "--no_export" in growth.command("inference", {}, 3)


def test_the_plot_has_a_panel_per_axis_with_points_where_they_belong(tmp_path):
    seconds = {"batch": {"train": {1: 1.0, 10: 10.0}, "inference": {1: 1.0, 10: 1.0}}}
    growth.draw(seconds, tmp_path / "plot.png")
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB")).astype(int)
    inside = pixels[60:421]  # above the legend
    red = np.argwhere((inside == [0xB0, 0x30, 0x30]).all(-1))
    blue = np.argwhere((inside == [0x20, 0x50, 0xA0]).all(-1))
    # Slope 1 over a decade runs from the lower left to the upper right, slope 0 stays below.
    assert red[red[:, 1].argmin(), 0] > 300
    assert red[red[:, 1].argmax(), 0] < 100
    assert np.ptp(blue[:, 0]) <= 12
