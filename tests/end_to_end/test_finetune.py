"""From three tools' exports to a scored, exported network, by the one command."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf import finetune
from tests.data_prep import exports
from tests.end_to_end.conftest import ROOT

SIDES_HW = (exports.HEIGHT * 4, exports.WIDTH * 4)
NAMES = exports.NAMES


def photos(folder: pathlib.Path, count: int = 8) -> dict[str, list[tuple[int, list]]]:
    """Draw photos with a red and a green rectangle each on rough ground; return the outlines."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    height, width = SIDES_HW
    outlines: dict[str, list[tuple[int, list]]] = {}
    for k in range(count):
        coarse = rng.integers(60, 200, (6, 8, 3), np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC)).copy()
        rows = []
        for number, color in enumerate(((220, 20, 20), (20, 200, 20))):
            y, x = rng.integers(10, height - 110), 10 + number * 160 + rng.integers(0, 40)
            h, w = rng.integers(50, 100, 2)
            pixels[y : y + h, x : x + w] = color
            corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
            rows.append((number, [[float(v) for v in corner] for corner in corners]))
        name = f"photo {k}"
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95)
        outlines[name] = rows
    return outlines


def as_coco(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """CVAT's COCO, ids from 1."""
    height, width = SIDES_HW
    content: dict = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)]
    for number, (name, rows) in enumerate(photos(folder / "images").items(), start=1):
        content["images"].append(
            {"id": number, "file_name": f"{name}.jpg", "height": height, "width": width}
        )
        for k, corners in rows:
            (x1, y1), (x2, y2) = corners[0], corners[2]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": k + 1,
                    "segmentation": [[v for corner in corners for v in corner]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "images", folder / "instances.json"


def as_yolo(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Roboflow's YOLO with polygons."""
    height, width = SIDES_HW
    outlines = photos(folder / "train" / "images")
    (folder / "train" / "labels").mkdir()
    for name, rows in outlines.items():
        lines = [
            " ".join([str(k), *(repr(v) for x, y in corners for v in (x / width, y / height))])
            for k, corners in rows
        ]
        (folder / "train" / "labels" / f"{name}.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(f"train: ../train/images\nnc: 2\nnames: {list(NAMES)}\n")
    return folder, folder


def as_labelme(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A labelme file beside each photo."""
    height, width = SIDES_HW
    for name, rows in photos(folder / "photos").items():
        shapes = [exports.labelme_shape(NAMES[k], corners) for k, corners in rows]
        content = exports.labelme_file(f"{name}.jpg", shapes)
        content |= {"imageHeight": height, "imageWidth": width}
        (folder / "photos" / f"{name}.json").write_text(json.dumps(content))
    return folder / "photos", folder / "photos"


def run(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mrcnn_tf.finetune", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("export", [as_coco, as_yolo, as_labelme])
def test_from_an_export_to_a_network(tmp_path, export):
    images, annotations = export(tmp_path / "set")
    output = tmp_path / "runs" / "rectangles"
    flags = (f"--images={images}", f"--annotations={annotations}", f"--output_dir={output}")
    flags += ("--minutes=0.1",)
    done = run(*flags)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record = json.loads((output / "split" / "split.json").read_text())
    sides = [row["side"] for row in record["images"]]
    assert sides.count("val") == 2
    assert sides.count("train") == 6
    assert json.loads((output / "data" / "inspection.json").read_text())
    chosen = (output / "rectangles.yaml").read_text()
    assert 'base: "maskrcnn_lite0_fpn_finetune"' in chosen
    assert "# the fullest training photo has 2 objects" in chosen
    metrics = json.loads((output / "training" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= metrics["mask_ap"] <= 1
    assert "<h1" in (output / "training" / "report" / "report.html").read_text()
    assert json.loads((output / "predictions" / "detections.json").read_text()) is not None
    assert len(list((output / "predictions" / "drawn").iterdir())) == 2
    assert "On the validation photos: mask AP" in done.stdout
    assert "\nNext, " not in done.stdout

    # Nothing is done twice, and nothing is mixed with other photos.
    again = run(*flags)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(": done, in") == len(finetune.Plan("a", "b", "c").stages)
    (images / "train" / "images" if export is as_yolo else images).joinpath("new.jpg").write_bytes(
        next(p for p in pathlib.Path(tmp_path / "set").rglob("*.jpg")).read_bytes()
    )
    refused = run(*flags)
    assert refused.returncode == 1
    assert "was begun with other photos or annotations" in refused.stderr


def commands(**given) -> dict[str, str]:
    plan = finetune.Plan("my photos", "export.json", "runs/x", **given)
    return {stage.name: stage.command() for stage in plan.stages}


def test_the_commands():
    found = commands()
    assert list(found) == [
        "make the annotations COCO's",
        "check the data",
        "split off photos for validation",
        "convert train",
        "convert val",
        "choose an experiment",
        "train",
        "evaluate the best",
        "report",
        "export",
        "predict",
    ]
    assert found["split off photos for validation"].endswith(
        "split_coco.py '--images=my photos' --annotations=runs/x/annotations.json "
        "--output_dir=runs/x/split --seed=0"
    )
    assert found["train"] == (
        "python -m mrcnn_tf.train --experiment=runs/x/x.yaml --model_dir=runs/x/training"
    )
    assert "--checkpoint_path=runs/x/training/best" in found["export"]
    assert "--input=runs/x/split/val.txt" in found["predict"]


def test_the_commands_with_photos_to_validate_on():
    found = commands(val_images="others", val_annotations="val.json", num_threads=1, minutes=5.0)
    assert "split off photos for validation" not in found
    assert "--val_annotations=runs/x/val_annotations.json" in found["check the data"]
    assert "--object_annotations_file=runs/x/val_annotations.json" in found["convert val"]
    assert "--image_dir=others" in found["convert val"]
    assert "--input=others" in found["predict"]
    for name in ("check the data", "choose an experiment", "train", "predict"):
        assert found[name].endswith("--threads=1"), name
    with pytest.raises(ValueError, match="--val_images and --val_annotations go together"):
        commands(val_images="others")


def test_what_is_not_there(tmp_path):
    done = run(f"--images={tmp_path}/none", "--annotations=a", f"--output_dir={tmp_path}/out")
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/none: there is no such file or folder\n"
    assert not (tmp_path / "out").exists()


def test_the_fingerprint_sees_what_changes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"123")
    (tmp_path / "a.json").write_text("{}")
    first = finetune.fingerprint(str(tmp_path))
    assert finetune.fingerprint(str(tmp_path)) == first
    (tmp_path / "a.json").write_text("[]")  # as long as before
    second = finetune.fingerprint(str(tmp_path))
    (tmp_path / "b.jpg").write_bytes(b"123")
    assert len({first, second, finetune.fingerprint(str(tmp_path))}) == 3
