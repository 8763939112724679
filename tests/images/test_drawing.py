"""Drawings, pixel by pixel."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.images import drawing

BLACK = np.zeros([600, 500, 3], np.uint8)  # large enough not to be enlarged
ORANGE = (230, 159, 0)  # the first colour


def disk(height, width, y, x, radius):
    rows, columns = np.ogrid[:height, :width]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2


def test_mask_lies_on_its_pixels_exactly():
    mask = disk(600, 500, 300, 250, 77.3)
    drawn = drawing.draw_detections(BLACK, np.array([[200.0, 150, 400, 350]]), [mask])
    inner = np.s_[210:390, 160:340]  # the box's line is outside of this
    np.testing.assert_array_equal(drawn[inner].any(axis=-1), mask[inner])
    colors = np.unique(drawn[inner][mask[inner]], axis=0).tolist()
    tint = np.round(np.array(ORANGE) * 0.45).astype(int).tolist()
    assert colors == sorted([tint, list(ORANGE)])
    # The outline is the mask's rim: full colour at the leftmost pixel of a row, tint further in.
    row = np.flatnonzero(mask[300])
    assert drawn[300, row[0]].tolist() == list(ORANGE)
    assert drawn[300, row[0] + 5].tolist() == tint


def test_run_lengths_and_arrays_draw_the_same():
    mask = disk(600, 500, 100, 400, 50)
    compressed = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    box = np.array([[50, 350, 150, 450]])
    forms = [mask, compressed, {"size": [600, 500], "counts": counts}]
    forms.append({**compressed, "counts": compressed["counts"].decode()})
    drawn = [drawing.draw_detections(BLACK, box, [form]) for form in forms]
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])


def test_box_covers_its_pixels_and_no_more():
    drawn = drawing.draw_detections(BLACK, np.array([[10.0, 20.0, 110.0, 220.0]]))
    rows, columns = np.nonzero(drawn.any(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 109, 20, 219)
    assert not drawn[15:105, 25:215].any()


def test_small_images_are_enlarged_by_a_whole_factor():
    image = np.random.default_rng(0).integers(0, 256, [96, 128, 3], dtype=np.uint8)
    drawn = drawing.draw_detections(image, np.zeros([0, 4]))
    np.testing.assert_array_equal(drawn, image.repeat(4, axis=0).repeat(4, axis=1))
    mask = np.zeros([96, 128], bool)
    mask[50, 60] = True
    drawn = drawing.draw_detections(0 * image, np.array([[40, 50, 70, 80]]), [mask])
    rows, columns = np.nonzero(drawn[180:270, 220:300].any(axis=-1))
    assert (rows.min() + 180, rows.max() + 180) == (200, 203)
    assert (columns.min() + 220, columns.max() + 220) == (240, 243)


def test_the_image_given_is_left_alone():
    image = BLACK.copy()
    drawn = drawing.draw_detections(image, np.array([[0, 0, 99, 99]]), names=["x"])
    assert not image.any()
    assert drawn.any()


def test_labels_do_not_cover_each_other_and_stay_inside():
    boxes = np.array([[0, 0, 300, 300], [0, 0, 290, 290], [580, 450, 600, 500]], float)
    colors = [4, 8, 5]
    plain = drawing.draw_detections(BLACK, boxes, color_ids=colors)
    drawn = drawing.draw_detections(
        BLACK,
        boxes,
        None,
        ["one", "two", "a name that is longer"],
        [1, 0.5, 0.25],
        color_ids=colors,
    )
    changed = (drawn != plain).any(axis=-1)
    # Each label is a filled rectangle in its object's colour.
    for k, color in enumerate([(0, 114, 178), (136, 34, 85), (213, 94, 0)]):
        fill = (drawn == color).all(axis=-1) & changed
        assert fill.sum() > 150, k


def test_names_of_any_script_and_length_do_not_crash():
    names = ["größe", "犬 🐕", "a" * 300, "", "two\nlines", "עברית"]
    boxes = np.array([[100 * k, 10, 100 * k + 50, 60] for k in range(6)], float)
    for scores in (None, np.float32([1, 0.5, 0, 0.25, 0.125, 0.99])):
        drawn = drawing.draw_detections(BLACK, boxes, None, names, scores)
        assert drawn.shape == BLACK.shape


def test_letters_beyond_ascii_are_written_or_replaced(monkeypatch):
    monkeypatch.setattr(drawing, "_SYSTEM_FONTS", ("no such font.ttf",))
    drawing._system_font.cache_clear()
    text, font = drawing._font_for("größe 犬", 800)
    assert text == "gro?e ?"
    assert font.getname() == drawing._font(800).getname()
    drawing._system_font.cache_clear()


def test_crowds_are_hatched_grey():
    mask = np.zeros([600, 500], bool)
    mask[100:300, 100:300] = True
    drawn = drawing.draw_detections(
        BLACK, np.array([[100, 100, 300, 300]]), [mask], is_crowd=[True]
    )
    assert (drawn == drawn[..., :1]).all()  # no colour
    striped = drawn[110:290, 110:290].any(axis=-1)
    assert 0.4 < striped.mean() < 0.6


def test_colors_follow_ids_not_positions():
    boxes = np.array([[0, 0, 100, 100], [200, 200, 300, 300]], float)
    drawn = drawing.draw_detections(BLACK, boxes, color_ids=[13, 1])
    np.testing.assert_array_equal(drawn[0, 50], drawn[200, 250])  # twelve colours, then again


@pytest.mark.parametrize(
    "box",
    [(10, 10, 10, 10), (-50, -50, 700, 900), (700, 700, 800, 800), (599.9, 499.9, 600, 500)],
)
def test_odd_boxes(box):
    drawn = drawing.draw_detections(
        BLACK, np.array([box], float), [np.zeros([600, 500], bool)], ["name"], [0.5]
    )
    assert drawn.shape == BLACK.shape


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (2000, 3)])
def test_odd_images(shape):
    image = np.full([*shape, 3], 7, np.uint8)
    drawn = drawing.draw_detections(
        image, np.array([[0, 0, *shape]], float), [np.ones(shape, bool)], ["name"], [0.5]
    )
    assert drawn.shape[0] % shape[0] == drawn.shape[1] % shape[1] == 0


def test_wrong_arguments_are_refused():
    box = np.array([[0, 0, 9, 9]], float)
    with pytest.raises(ValueError, match="1 boxes but 2 names"):
        drawing.draw_detections(BLACK, box, names=["a", "b"])
    with pytest.raises(ValueError, match=r"mask of \[5, 5\] in an image of \[600, 500\]"):
        drawing.draw_detections(BLACK, box, [np.ones([5, 5], bool)])
    with pytest.raises(ValueError, match=r"uint8 \[h, w, 3\], not float32"):
        drawing.draw_detections(BLACK.astype(np.float32), box)


def test_side_by_side():
    left, right = np.full([600, 500, 3], 50, np.uint8), np.full([480, 640, 3], 90, np.uint8)
    sheet = drawing.draw_side_by_side(left, right)
    strip = sheet.shape[0] - 600
    np.testing.assert_array_equal(sheet[strip:, :500], left)
    np.testing.assert_array_equal(sheet[strip : strip + 480, -640:], right)
    assert (sheet[:strip] < 128).any()  # the titles
    assert (sheet[strip + 480 :, 508:] == 255).all()


def test_contact_sheet():
    images = [np.full([50, 60, 3], value, np.uint8) for value in (10, 20, 30)]
    sheet = drawing.contact_sheet(images, columns=2)
    assert sheet.shape == (2 * 58 + 8, 2 * 68 + 8, 3)
    assert (sheet[66 : 66 + 50, 8 : 8 + 60] == 30).all()
    assert (sheet[8:58, 76 : 76 + 60] == 20).all()
    assert drawing.contact_sheet(images[:1], columns=5).shape == (66, 76, 3)
    large = np.zeros([3000, 1500, 3], np.uint8)
    assert drawing.contact_sheet([large], columns=1).shape == (1024 + 16, 512 + 16, 3)
    with pytest.raises(ValueError, match="at least one"):
        drawing.contact_sheet([], columns=2)
