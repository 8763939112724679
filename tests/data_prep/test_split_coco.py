"""The split, through the command's function: groups, classes, shares, determinism."""

import json
import os
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_prep import grouping, split_coco, splitting

ROOT = pathlib.Path(__file__).resolve().parents[2]


def photo(seed, size=(96, 72)):
    """A picture unlike any of another seed: noise whose power is 1 / f^2."""
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    noise = np.fft.fft2(np.random.default_rng(seed).normal(size=(height, width)))
    pixels = np.fft.ifft2(noise / frequency).real
    pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
    return Image.fromarray(np.stack([pixels.clip(0, 255).astype(np.uint8)] * 3, axis=2))


def write_set(folder, pictures, classes=("a", "b")):
    """Write a COCO set: {file name: (picture, class index of each object)}."""
    (folder / "images").mkdir(parents=True)
    content = {
        "info": {"year": 2024},
        "images": [],
        "annotations": [],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(classes)],
    }
    for name, (picture, objects) in pictures.items():
        picture.save(folder / "images" / name)
        row = {"id": len(content["images"]) + 1, "file_name": name}
        content["images"].append(row | {"width": picture.width, "height": picture.height})
        for k in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": row["id"],
                    "category_id": k + 1,
                    "bbox": [10, 10, 20, 20],
                    "area": 400,
                    "iscrowd": 0,
                    "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]],
                }
            )
    (folder / "all.json").write_text(json.dumps(content))
    return content


def split(folder, output="split", fraction=0.2, seed=0, annotations="all.json"):
    record = split_coco.split(
        str(folder / "images"), str(folder / annotations), str(folder / output), fraction, seed
    )
    parts = {s: json.loads((folder / output / f"{s}.json").read_text()) for s in ("train", "val")}
    assert json.loads((folder / output / "split.json").read_text()) == record
    for side, part in parts.items():
        listed = (folder / output / f"{side}.txt").read_text().splitlines()
        there = {row["file_name"] for row in part["images"]} & set(os.listdir(folder / "images"))
        assert set(listed) == {str(folder / "images" / name) for name in there}
    return record, {
        side: {row["file_name"] for row in part["images"]} for side, part in parts.items()
    }


def test_groups_by_name_and_by_sight(tmp_path):
    near, moved = photo(1), photo(2, (200, 150))
    near.save(tmp_path / "x.jpg", quality=40)
    hashes = {
        "train/p_jpg.rf.01ab.jpg": photo(10),
        "valid/p_jpg.rf.99ff.jpg": photo(10).transpose(Image.Transpose.ROTATE_90),
        "one.png": near,
        "other name.jpg": Image.open(tmp_path / "x.jpg"),
        "clip_0009.jpg": moved.crop((0, 0, 184, 138)),
        "clip_0010.jpg": moved.crop((10, 8, 194, 146)),
        "clip_0011.jpg": photo(50),
        "alone/clip_0010.jpg": photo(51),
        "same.jpg": photo(52),
        "same.png": photo(53),
    }
    names = list(hashes)
    bits = [grouping.near_duplicates.hash_of(np.asarray(hashes[name])) for name in names]
    apart = (bits[4] ^ bits[5]).bit_count()
    assert 10 < apart <= 20  # a case of frames, and not of near-duplicates
    found = {
        tuple(sorted(names[k] for k in group.members)): group.why
        for group in grouping.group(names, bits)
    }
    assert found == {
        ("train/p_jpg.rf.01ab.jpg", "valid/p_jpg.rf.99ff.jpg"): ["copies"],
        ("one.png", "other name.jpg"): ["near-duplicates"],
        ("clip_0009.jpg", "clip_0010.jpg"): ["frames"],
        ("clip_0011.jpg",): [],
        ("alone/clip_0010.jpg",): [],
        ("same.jpg", "same.png"): ["same name"],
    }
    assert len(grouping.group(names, [None] * len(names))) == 8  # names alone


@pytest.fixture
def photos(tmp_path):
    """40 photos, 10 of them twice; classes a (many), b (4 photos), c (one photo), 6 of nothing."""
    pictures = {}
    for k in range(40):
        objects = [0] * (k % 3) + [1] * (k in (3, 9, 17, 30)) + [2] * (k == 5)
        pictures[f"{k:03d}.png"] = (photo(k), [] if k >= 34 else objects or [0])
        if k < 10:
            copy = photo(k).resize((64, 48))
            pictures[f"copy of {k}.png"] = (copy, pictures[f"{k:03d}.png"][1])
    write_set(tmp_path, pictures, ("a", "b", "c", "never"))
    return tmp_path


def test_split_keeps_copies_together_and_classes_on_both_sides(photos, capsys):
    record, sides = split(photos)
    assert len(sides["train"]) + len(sides["val"]) == 50
    assert not sides["train"] & sides["val"]
    assert len(sides["val"]) in (9, 10, 11)
    for k in range(10):
        assert (f"{k:03d}.png" in sides["val"]) == (f"copy of {k}.png" in sides["val"])
    classes = record["classes"]
    total = classes["a"]["train"] + classes["a"]["val"]
    assert classes["a"]["val"] / total == pytest.approx(0.2, abs=0.06)
    assert classes["b"]["train"] > 0
    assert classes["b"]["val"] > 0
    assert (classes["c"]["train"], classes["c"]["val"]) == (2, 0)  # the photo and its copy
    assert classes["c"]["why_on_one_side"] == "all in one group of images"
    assert classes["never"]["why_on_one_side"] == "no objects"
    assert {f"{k:03d}.png" for k in range(34, 40)} & sides["val"]  # images of nothing too
    assert {f"{k:03d}.png" for k in range(34, 40)} & sides["train"]
    row = next(row for row in record["images"] if row["file_name"] == "copy of 3.png")
    assert row["why"] == "with its group: near-duplicates"
    out = capsys.readouterr().out
    assert "class 'c': train only, all in one group" in out


def test_parts_hold_everything_once(photos):
    split(photos)
    whole = json.loads((photos / "all.json").read_text())
    parts = [json.loads((photos / "split" / f"{s}.json").read_text()) for s in ("train", "val")]
    for key in ("images", "annotations"):
        together = [row for part in parts for row in part[key]]
        assert sorted(together, key=lambda row: row["id"]) == whole[key]
    for part in parts:
        assert part["categories"] == whole["categories"]
        assert part["info"] == {"year": 2024}
        ids = {row["id"] for row in part["images"]}
        assert {row["image_id"] for row in part["annotations"]} <= ids


def test_order_of_the_file_does_not_matter_the_seed_does(photos):
    _, first = split(photos)
    content = json.loads((photos / "all.json").read_text())
    for key in ("images", "annotations", "categories"):
        random.Random(1).shuffle(content[key])
    (photos / "shuffled.json").write_text(json.dumps(content))
    _, second = split(photos, "other", annotations="shuffled.json")
    assert first == second
    orders = [
        [row["file_name"] for row in json.loads((photos / o / "train.json").read_text())["images"]]
        for o in ("split", "other")
    ]
    assert orders[0] == orders[1]
    others = [split(photos, "seed", seed=seed)[1]["val"] for seed in (1, 2, 3)]
    assert any(other != first["val"] for other in others)


def test_odd_rows_go_to_a_side_too(photos):
    content = json.loads((photos / "all.json").read_text())
    content["images"][0]["file_name"] = "gone.png"
    content["annotations"][5]["bbox"] = [1, 2]
    content["annotations"].append({**content["annotations"][0], "id": 999, "image_id": 777})
    (photos / "all.json").write_text(json.dumps(content))
    record, sides = split(photos)
    assert "gone.png" in sides["train"] | sides["val"]
    assert len(record["grouped_by_name_alone"]) == 1
    parts = [json.loads((photos / "split" / f"{s}.json").read_text()) for s in ("train", "val")]
    assert sum(len(part["annotations"]) for part in parts) == len(content["annotations"])
    assert 999 in {row["id"] for row in parts[0]["annotations"]}


def test_a_fixed_camera_is_cut_and_said(tmp_path, capsys):
    pictures = {}
    for k in range(40):
        pixels = np.asarray(photo(0)).copy()
        pixels[k : k + 6, k : k + 6] = 255
        pictures[f"{k:02d}.png"] = (Image.fromarray(pixels), [0])
    write_set(tmp_path, pictures)
    record, sides = split(tmp_path)
    assert len(sides["val"]) == 8
    assert "40 of 40 images are alike" in record["warnings"][0]
    assert "scores will be better" in capsys.readouterr().err
    for k in range(0, 40, 2):  # stretches of two
        assert (f"{k:02d}.png" in sides["val"]) == (f"{k + 1:02d}.png" in sides["val"])


def test_what_cannot_be_split(tmp_path):
    write_set(tmp_path / "one", {"a.png": (photo(0), [0])})
    with pytest.raises(ValueError, match="1 images cannot be split"):
        split(tmp_path / "one")
    content = write_set(tmp_path / "twice", {"a.png": (photo(0), [0]), "b.png": (photo(1), [1])})
    content["images"][1]["id"] = 1
    (tmp_path / "twice" / "all.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="image ids occur more than once"):
        split(tmp_path / "twice")


def test_two_images_are_one_each(tmp_path):
    write_set(tmp_path, {"a.png": (photo(0), [0]), "b.png": (photo(1), [0])})
    _, sides = split(tmp_path)
    assert {len(side) for side in sides.values()} == {1}


def test_every_class_of_two_groups_on_both_sides():
    rng = np.random.default_rng(0)
    for seed in range(20):
        counts = rng.poisson(0.08, (60, 12))
        sizes = rng.integers(1, 4, 60)
        chosen = splitting.choose_validation(counts, sizes, 0.25, seed)
        in_val = np.isin(np.arange(60), list(chosen))
        for column in counts.T:
            if (column > 0).sum() >= 2:
                assert column[in_val].any()
                assert column[~in_val].any()
            elif column.any():
                assert column[~in_val].any()
        assert sizes[in_val].sum() / sizes.sum() == pytest.approx(0.25, abs=0.08)


def test_groups_that_training_cannot_spare():
    # Three groups, each two of three classes: whichever goes, training keeps all classes.
    counts = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]])
    chosen = splitting.choose_validation(counts, np.array([1, 1, 1]), 0.3, 0)
    assert len(chosen) == 1
    # Two groups that each have the only objects of a class.
    chosen = splitting.choose_validation(np.eye(2, dtype=int), np.array([3, 1]), 0.25, 0)
    assert chosen == {1}
    with pytest.raises(ValueError, match="one group"):
        splitting.choose_validation(np.ones((1, 1), int), np.array([4]), 0.2, 0)


def test_the_command(photos):
    command = [
        *(sys.executable, "data_prep/split_coco.py", f"--images={photos / 'images'}"),
        *(f"--annotations={photos / 'all.json'}", f"--output_dir={photos / 'split'}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "val.json: " in done.stdout
    for flag, message in (
        ("--val_fraction=1", "expected a number between 0 and 1"),
        ("--annotations=gone", "--annotations=gone: not found"),
    ):
        done = subprocess.run(
            [*command, flag], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert message in done.stderr


def test_real_photos_are_all_different(shared, tmp_path):
    folder = shared / "data" / "balloon_coco"
    record = split_coco.split(
        str(folder / "train"), str(folder / "annotations" / "instances_train.json"),
        str(tmp_path), 0.2, 0,
    )  # fmt: skip
    assert {row["why"] for row in record["images"]} == {"alone"}
    assert sum(row["side"] == "val" for row in record["images"]) in (11, 12, 13)
