"""From three tools' exports to a scored, exported network, by the one command."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf import finetune
from mrcnn_tf.console import running
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
    held_out = {row["file_name"] for row in record["images"] if row["side"] == "val"}
    drawn = {path.stem for path in (output / "predictions" / "drawn").iterdir()}
    assert drawn == {pathlib.PurePath(name).stem for name in held_out}
    assert "On the validation photos: mask AP" in done.stdout
    assert "\nNext, " not in done.stdout

    # Nothing is done twice, and nothing is mixed with other photos once there is a training.
    again = run(*flags, "--threads=1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(": done, in") == 12
    (annotations.parent / "new.jpg").write_bytes(next(images.rglob("*.jpg")).read_bytes())
    if export is not as_coco:
        pathlib.Path(images, "new.jpg").write_bytes(next(images.rglob("*.jpg")).read_bytes())
    changed = run(*flags[:-1], "--minutes=0.2")
    assert changed.returncode == 1
    assert "holds a training on other data or settings: stage 'choose" in changed.stderr


@pytest.fixture
def ran(monkeypatch):
    """Stages are noted, not run; `failing` is {name of a module or script: exit code}."""

    class Ran(list):
        failing: dict[str, int] = {}

    calls = Ran()

    class Pretended:
        def __init__(self, command, env):
            self.name = pathlib.Path(command[2] if command[1] == "-m" else command[1]).stem
            self.name = (
                self.name.removeprefix("mrcnn_tf.") if command[1] != "-m" else command[2][9:]
            )
            calls.append(self.name)

        def wait(self):
            return calls.failing.get(self.name, 0)

    monkeypatch.setattr(running.subprocess, "Popen", Pretended)
    return calls


ALL = [
    *("to_coco", "inspect_data", "split_coco", "create_coco_tfrecord", "create_coco_tfrecord"),
    *("choose_experiment", "inspect_data", "train", "train", "report", "export", "predict"),
]


def test_what_was_refused_may_be_mended(tmp_path, ran, capsys):
    photo, output = tmp_path / "photos" / "a.jpg", tmp_path / "out"
    photo.parent.mkdir()
    photo.write_bytes(b"cut")
    given = [str(photo.parent), "annotations.json"]

    def go(**more):
        return finetune.run(finetune.Plan(*given, str(output), **more), [str(photo.parent)])

    ran.failing = {"inspect_data": 3}
    with pytest.raises(SystemExit):
        go()
    assert ran == ALL[:2]
    # The same again asks again; another photo begins again; so does another flag.
    (output / "records").mkdir()
    for change in ({}, {"on_error": "skip", "seed": 1}):
        ran.clear()
        photo.write_bytes(b"whole" * (1 + len(change)))
        if change:
            ran.failing = {"train": 130}
        with pytest.raises(SystemExit) as stopped:
            go(**change)
        assert "beginning again: " in capsys.readouterr().out
        assert not (output / "records").exists()
        assert ran == (ALL[:8] if change else ALL[:2])
    assert stopped.value.code == 130

    # Stopped in training it goes on there, on as many threads as one likes.
    (output / "training").mkdir()
    ran.clear()
    ran.failing = {"inspect_data": 2, "predict": 1}
    seconds = go(on_error="skip", seed=1, num_threads=1)
    assert ran == ALL[7:]
    assert len(seconds) == 12
    out = capsys.readouterr().out
    assert [line.split("]")[0] for line in out.splitlines() if ": done, in" in line] == [
        f"[{number}/12" for number in range(1, 8)
    ]
    # With other photos it does not, and says so.
    photo.write_bytes(b"another")
    with pytest.raises(ValueError, match="holds a training on other .*annotations have changed"):
        go(on_error="skip", seed=1)


def test_its_own_output_among_the_photos_is_no_change(tmp_path, ran):
    (tmp_path / "a.jpg").write_bytes(b"123")
    output = tmp_path / "runs"
    plan = finetune.Plan(str(tmp_path), "annotations.json", str(output))
    finetune.run(plan, [str(tmp_path)])
    (output / "records").mkdir()
    (output / "records" / "x.json").write_text("{}")
    (tmp_path / ".DS_Store").write_bytes(b"1")
    ran.clear()
    finetune.run(plan, [str(tmp_path)])
    assert ran == []


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
        "check the data for this network",
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
    for name in ("check the data", "choose an experiment", "train", "report", "export", "predict"):
        assert found[name].endswith("--threads=1"), name
    assert found["convert train"].endswith("--on_error=skip --num_processes=1")
    with pytest.raises(ValueError, match="--val_images and --val_annotations go together"):
        commands(val_images="others")


def test_what_is_not_there(tmp_path):
    done = run(f"--images={tmp_path}/none", "--annotations=a", f"--output_dir={tmp_path}/out")
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/none: there is no such file or folder\n"
    assert not (tmp_path / "out").exists()


def test_the_fingerprint_sees_what_changes(tmp_path):
    def now() -> str:
        return finetune.fingerprint(str(tmp_path), without=tmp_path / "out")

    (tmp_path / "a.jpg").write_bytes(b"123")
    (tmp_path / "a.json").write_text("{}")
    first = now()
    assert now() == first
    (tmp_path / "a.json").write_text("[]")  # as long as before
    second = now()
    (tmp_path / "b.jpg").write_bytes(b"123")
    assert len({first, second, now()}) == 3


@pytest.mark.parametrize("place", ["", "data", "photos/deep"])
def test_photos_in_the_folder_that_is_written_are_refused(tmp_path, place):
    """It may empty its own folders, and does not look for changes in them."""
    photos = tmp_path / "out" / place
    photos.mkdir(parents=True)
    (photos / "a.jpg").write_bytes(b"123")
    flags = [f"--images={photos}", f"--annotations={photos}", f"--output_dir={tmp_path}/out/"]
    done = run(*flags)
    assert done.returncode == 1
    assert done.stderr == f"error: {photos} lies in --output_dir={tmp_path}/out: take another one\n"
    assert [path.name for path in photos.rglob("*.jpg")] == ["a.jpg"]


def test_a_slash_at_the_end_changes_nothing():
    plain = finetune.Plan("photos", "export", "runs/x")
    with_slashes = finetune.Plan("photos/", "./export/", "runs//x/")
    assert plain.stages == with_slashes.stages


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--output_dir=", "error: --output_dir is empty\n"),
        ("--weights=nixda", "error: --weights=nixda: neither auto nor none, nor a folder\n"),
    ],
)
def test_refused_before_anything_is_done(tmp_path, flag, said):
    (tmp_path / "photos").mkdir()
    flags = [f"--images={tmp_path}/photos", f"--annotations={tmp_path}/photos"]
    done = run(*flags, f"--output_dir={tmp_path}/out", flag)
    assert (done.returncode, done.stderr) == (1, said)
    assert not (tmp_path / "out").exists()
