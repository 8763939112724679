"""`--results`: what the command writes beside detections.json, read back by the converter."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from data_prep import to_coco
from mrcnn_tf.ops import coco_rle
from mrcnn_tf.results import forms
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.serving import image_run, other_forms

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture
def folder(tmp_path, draw_rectangles):
    """Two images with objects, one of them turned by EXIF; one without; one that is broken."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    both = draw_rectangles(100, 160, {RED: (20, 40, 60, 100), GREEN: (70, 10, 95, 50)})
    Image.fromarray(both).save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(both).transpose(Image.Transpose.ROTATE_90)
    turned.save(folder / "sub/b.png", exif=exif)
    Image.fromarray(draw_rectangles(50, 50, {})).save(folder / "sub/none.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing behind it")
    return folder


def predicted(export, folder, tmp_path, threshold):
    out = tmp_path / "out"
    code = image_run.run(
        str(export("image_bytes")), str(folder), str(out), threshold, 2, False, forms.NAMES
    )
    assert code == 1  # of the broken one
    rows = json.loads((out / "detections.json").read_text("utf-8"))
    expected = {"a.png": [], "sub/b.png": [], "sub/none.png": []}
    for row in rows:
        if row["score"] >= threshold:
            mask = coco_mask.decode(row["segmentation"]).astype(bool)
            expected[row["image_id"]].append((row["category"], mask))
    return out / "results", expected


@pytest.mark.parametrize(("threshold", "objects_of_each"), [(0.4, 2), (0.6, 1)])
def test_every_form_says_the_same(export, folder, tmp_path, capsys, threshold, objects_of_each):
    results, expected = predicted(export, folder, tmp_path, threshold)
    assert [len(found) for found in expected.values()] == [objects_of_each] * 2 + [0]
    assert f"those with a score of {threshold} or more as coco, labelme" in capsys.readouterr().out
    for form in ("coco", "labelme", "yolo", "masks"):
        output = tmp_path / f"back/{form}.json"
        # Who reads them back has looked at the broken file, and taken it away.
        (folder / "broken.jpg").unlink(missing_ok=True)
        to_coco.convert(str(folder), str(results / form), str(output), None, skip=False)
        report = (tmp_path / f"back/{form}.report.txt").read_text()
        assert "left out" not in report, form
        content = json.loads(output.read_text("utf-8"))
        names = {row["id"]: row["name"] for row in content["categories"]}
        files = {row["id"]: row for row in content["images"]}
        found = {row["file_name"]: [] for row in content["images"]}
        for row in content["annotations"]:
            image, segmentation = files[row["image_id"]], row["segmentation"]
            if isinstance(segmentation, list):
                segmentation = coco_mask.merge(
                    coco_mask.frPyObjects(segmentation, image["height"], image["width"])
                )
            mask = coco_mask.decode(segmentation).astype(bool)
            found[image["file_name"]].append((names[row["category_id"]], mask))
        assert found.keys() == expected.keys(), form
        for name, objects in expected.items():
            assert [n for n, _ in found[name]] == [n for n, _ in objects], form
            for (_, mask), (_, truth) in zip(found[name], objects, strict=True):
                np.testing.assert_array_equal(mask, truth)
    crops = sorted(
        p.relative_to(results / "crops").as_posix() for p in results.rglob("crops/**/*.*")
    )
    assert crops == sorted(
        f"{category}/{name}-{k}.png"
        for name, objects in expected.items()
        for k, (category, _) in enumerate(objects)
    )


def test_files_of_one_stem_are_refused_before_anything_is_written(export, folder, tmp_path):
    (folder / "a.webp").write_bytes((folder / "a.png").read_bytes())
    arguments = (str(export("image_bytes")), str(folder), str(tmp_path / "out"), 0.5, 2, False)
    with pytest.raises(ValueError, match="--results=yolo: a.png and a.webp would share one file"):
        image_run.run(*arguments, ["crops", "yolo"])
    assert not (tmp_path / "out").exists()
    assert image_run.run(*arguments, ["crops", "coco"]) == 1


def test_a_mask_without_a_pixel_is_left_out_and_counted(tmp_path):
    empty = coco_rle.crop_to_rle(np.zeros((4, 5), bool), 0, 0, 4, 5)
    full = coco_rle.crop_to_rle(np.ones((4, 5), bool), 0, 0, 4, 5)
    box = np.array([0.0, 0, 4, 5])
    found = [Detection(box, 0.9, 3, "c", empty), Detection(box, 0.8, 3, "c", full)]
    with other_forms.OtherForms(["coco", "crops"], {3: "c"}, str(tmp_path), 0.5) as writer:
        for name in ("a.png", "b.png"):
            writer.add(writer.write(name, "", np.zeros((4, 5, 3), np.uint8), found))
    assert writer.num_empty == 2
    content = json.loads((tmp_path / "coco/annotations.json").read_text())
    assert [(row["id"], row["image_id"]) for row in content["annotations"]] == [(1, 1), (2, 2)]
    assert content["images"][1] == {"id": 2, "file_name": "b.png", "height": 4, "width": 5}
    assert {p.name for p in (tmp_path / "crops/c").iterdir()} == {"a.png-1.png", "b.png-1.png"}


def test_what_is_interrupted_is_a_whole_file(tmp_path):
    writer = other_forms.OtherForms(["coco"], {3: "c"}, str(tmp_path), 0.5)

    def write_and_stop():
        with writer:
            writer.add(writer.write("a.png", "", np.zeros((4, 5, 3), np.uint8), []))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    (path,) = (tmp_path / "coco").iterdir()
    assert path.name == "annotations.json.incomplete"
    assert len(json.loads(path.read_text())["images"]) == 1
