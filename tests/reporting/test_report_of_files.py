"""Reports of result files, as the command makes them."""

import csv
import html.parser
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mrcnn_tf import report
from mrcnn_tf.reporting import report_page, scored
from tests.analysis import scenes

CAT, DOG = 1, 2
NASTY = "<script>alert('dog')</script> & \u202e"


def write_set(folder, objects, detections, names=("cat", "dog"), num_images=1, **options):
    """Write annotations, results and images as files; return the paths of the first two."""
    made = scenes.evaluator(objects, detections, names, num_images, **options)
    rng = np.random.default_rng(0)
    dataset = {
        "images": [
            {"id": i + 1, "width": scenes.SIDE, "height": scenes.SIDE, "file_name": f"{i + 1}.png"}
            for i in range(num_images)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
        "annotations": [
            {
                "id": k + 1,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "segmentation": scenes.polygon(box),
                "iscrowd": 0,
            }
            for k, (image, category, box, *_) in enumerate(objects)
        ],
    }
    (folder / "images").mkdir(exist_ok=True)
    for image in dataset["images"]:
        pixels = rng.integers(0, 255, (scenes.SIDE, scenes.SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / image["file_name"])
    (folder / "instances.json").write_text(json.dumps(dataset))
    (folder / "results.json").write_text(json.dumps(made.results()))
    return str(folder / "results.json"), str(folder / "instances.json")


class Reader(html.parser.HTMLParser):
    """Collects what a browser would fetch or run, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.sources, self.words = [], [], []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, text):
        self.words.append(text)


def read(path):
    return Reader(open(path, encoding="utf-8").read())


def test_a_report_by_hand(tmp_path):
    """Two cats and a dog; a cat is found, the dog is called a cat, one cat is seen on nothing."""
    a, b, c, nowhere = [5, 5, 30, 30], [60, 5, 30, 30], [5, 60, 30, 30], [60, 60, 30, 30]
    objects = [(1, CAT, a), (1, CAT, b), (2, DOG, c)]
    found = [(1, CAT, a, 0.9), (2, CAT, c, 0.8), (2, CAT, nowhere, 0.3)]
    paths = write_set(tmp_path, objects, found, num_images=3, include_masks=True)
    page = report.of_files(*paths, str(tmp_path / "images"), str(tmp_path / "out"))

    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["kind"] == "mask"
    assert (content["images"], content["objects"], content["detections"]) == (3, 3, 3)
    # F1 at 0.9: 2 * 1 / (2 + 0 + 2) = 1/2; lower thresholds add wrong ones only.
    assert content["suggested_score_threshold"] == pytest.approx(0.85)
    assert content["threshold"]["precision"] == 1
    assert content["threshold"]["recall"] == pytest.approx(1 / 3)
    assert content["error_kinds"]["counts"] == {
        **dict.fromkeys(("localisation", "both", "duplicate"), 0),
        **{"class": 1, "background": 1, "missed": 1},
    }
    assert content["error_kinds"]["counts_from_threshold"]["missed"] == 2
    # Cats: precision 1 up to recall 1/2, 51 of 101 recalls; dogs 0.
    assert content["error_kinds"]["ap50"] == pytest.approx(51 / 101 / 2)
    assert content["error_kinds"]["gain_in_ap50"]["class"] == pytest.approx(1 / 2)
    assert content["confusion"]["counts"] == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]

    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    (row,) = [
        r
        for r in rows
        if (r["kind"], r["category"], r["size"], r["measure"]) == ("mask", "cat", "all", "ap50")
    ]
    assert float(row["value"]) == pytest.approx(51 / 101)
    assert row["objects"] == "2"
    kept = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert kept == json.loads((tmp_path / "results.json").read_text())

    shown = read(page)
    assert "finds 1 of 3 objects, misses 2, and shows 0 that are wrong" in shown.text
    assert "Class errors cost most: without them, AP50 would be 0.50 higher." in shown.text
    assert "To draw from 0.85 on: predict --score_threshold=0.85." in shown.text
    assert not list((tmp_path / "out").glob("*.partial"))
    assert shown.tags.count("img") >= 2
    assert all(source.startswith(("data:image/", "#")) for source in shown.sources)
    assert "script" not in shown.tags


@pytest.mark.parametrize(
    ("objects", "found", "names"),
    [
        ([], [], ("cat",)),
        ([(1, CAT, [5, 5, 30, 30])], [], ("cat", "dog")),
        ([], [(1, CAT, [5, 5, 30, 30], 0.9)], ("cat", "dog")),
        ([(1, CAT, [5, 5, 30, 30])], [(1, CAT, [60, 60, 30, 30], 0.9)], ("cat",)),
    ],
    ids=["nothing", "nothing found", "nothing there", "nothing right"],
)
def test_a_report_of_nothing(tmp_path, objects, found, names):
    paths = write_set(tmp_path, objects, found, names)
    page = report.of_files(*paths, str(tmp_path / "images"), str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["suggested_score_threshold"] is None
    assert "nan" not in read(page).text.lower().split()
    shown = read(page).text
    if not objects:
        assert "annotate some validation images" in shown
    else:
        assert ("Nothing that the network found is right" if found else "found nothing at all") in (
            shown
        )
    assert "Nothing stands out" not in shown
    # Of the kinds of errors only those are drawn whose mending can be measured.
    drawn = shown.split("Kinds of errors")[-1].split("points of AP50")[0]
    assert ("What mending each kind would give" in shown) == bool(objects)
    if objects:
        assert "missed" not in drawn  # all of them are: without them nothing is left to score


def test_no_image_is_shown_twice():
    """Of four images each has a right detection and a wrong one."""
    objects = [(i, CAT, [5, 5, 30, 30]) for i in range(1, 5)]
    found = [(*o, 0.9) for o in objects] + [(i, CAT, [60, 60, 9, 9], 0.9) for i in range(1, 5)]
    numbers = scored.score(scenes.evaluator(objects, found, num_images=4))
    chosen = report_page.chosen_images(numbers)
    assert {why: len(of) for why, of in chosen.items()} == {"worst": 2, "confusing": 2, "best": 0}
    shown = [o.image for of in chosen.values() for o in of]
    assert len(shown) == len(set(shown))


def test_names_with_markup_and_odd_letters_stay_text(tmp_path):
    box = [5, 5, 30, 30]
    paths = write_set(tmp_path, [(1, DOG, box)], [(1, DOG, box, 0.9)], ("cat", NASTY))
    page = read(report.of_files(*paths, str(tmp_path / "images"), str(tmp_path / "out")))
    assert "script" not in page.tags
    assert "<script>alert('dog')</script>" in page.text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["threshold"]["f1"] == 1


def test_images_that_are_not_there_are_not_shown(tmp_path):
    box = [5, 5, 30, 30]
    paths = write_set(tmp_path, [(1, CAT, box)], [(1, CAT, box, 0.9)])
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    for images in (str(tmp_path / "images"), str(tmp_path / "nowhere"), None):
        assert "img" not in read(report.of_files(*paths, images, str(tmp_path / "out"))).tags


def test_the_same_input_gives_the_same_numbers(tmp_path):
    objects, found = scenes.random_scene(1)
    paths = write_set(tmp_path, objects, found, "abc", num_images=20)
    contents = []
    for out in ("first", "second"):
        report.of_files(*paths, None, str(tmp_path / out))
        contents.append((tmp_path / out / "results.csv").read_text())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ("[", "results.json: not a JSON file"),
        ("{}", "results.json: not a list of COCO results"),
        ('[{"image_id": 1}]', "results.json: a result has no 'category_id'"),
        ('[{"image_id": 7, "category_id": 1, "score": 1}]', "image '7' is not in the ground truth"),
    ],
)
def test_results_that_cannot_be_used_are_named(tmp_path, results, message):
    _, annotations = write_set(tmp_path, [(1, CAT, [5, 5, 30, 30])], [])
    (tmp_path / "results.json").write_text(results)
    with pytest.raises(ValueError, match="results.json") as error:
        report.of_files(str(tmp_path / "results.json"), annotations, None, str(tmp_path / "out"))
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_results_of_unknown_categories_are_counted(tmp_path, capsys):
    box = [5, 5, 30, 30]
    paths = write_set(tmp_path, [(1, CAT, box)], [(1, CAT, box, 0.9)])
    (row,) = json.loads((tmp_path / "results.json").read_text())
    others = [row | {"category_id": k} for k in (9, 7, 7)]
    (tmp_path / "results.json").write_text(json.dumps([row, *others]))
    report.of_files(*paths, None, str(tmp_path / "out"))
    said = f"3 results are left out: their categories are not in {paths[1]}: 7, 9\n"
    assert said in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["detections"] == 1


@pytest.mark.slow
def test_the_command(tmp_path):
    box = [5, 5, 30, 30]
    results, annotations = write_set(tmp_path, [(1, CAT, box)], [(1, CAT, box, 0.9)])

    def run(*flags):
        command = [sys.executable, "-m", "mrcnn_tf.report", f"--detections={results}", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    out = tmp_path / "out"
    done = run(f"--annotations={annotations}", f"--output_dir={out}", f"--images={tmp_path}/images")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "score threshold 0.450: 100% of the objects found, 100% of what is shown is right",
        f"{out}/report.html",
    ]
    refused = run(f"--annotations={tmp_path}/none.json", f"--output_dir={out}")
    assert refused.returncode == 1
    assert f"error: {tmp_path}/none.json: cannot be read" in refused.stderr
    assert "needs --annotations" in run().stdout + run().stderr
