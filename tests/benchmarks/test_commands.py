"""Each measurement at its smallest, through its command: fields, never times."""

import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

SMALL = ("--height=64", "--width=96", "--rounds=1")
SUMMARY = {"median", "min", "max", "runs", "calm", "calm_runs"}


def test_converter_of_a_few_images(measure):
    few, more = measure("coco_size.py", "--images", 6, 12, "--num_processes=1", "--num_shards=2")
    assert (few["args"]["images"], more["args"]["images"]) == (6, 12)
    assert 0 < few["objects"] < more["objects"]
    assert few["seconds"]["whole"] >= few["seconds"]["first_record"]
    assert more["peak_mib"]["together"] >= more["peak_mib"]["largest"] > 50


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_step(measure, dtype):
    [line] = measure("train_step.py", *SMALL, "--freeze_at=2", f"--dtype={dtype}", "--objects=8")
    assert set(line["seconds"]["step"]) == SUMMARY
    assert 8 <= line["positives"] <= 128  # the proposals are not all garbage
    assert len(line["losses"]) == 3
    assert all(0 < loss < 100 for loss in line["losses"])
    assert line["peak_mib"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("what", ["train", "infer"])
def test_few_and_many_classes(measure, what):
    [line] = measure(
        "classes.py", *SMALL, f"--what={what}", "--classes", 4, 30, "--kinds", "federated"
    )
    few, many = line["contestants"]
    assert (few["classes"], many["classes"]) == (4, 30)
    assert few["loss"] == many["loss"] == "federated"
    assert few["seconds_ratio"] == few["peak_ratio"] == 1.0
    assert all(row["median_s"] > 0 and row["peak_mib"] > 100 for row in (few, many))
    assert all(0 < row["value"] < 1000 for row in (few, many))


@pytest.mark.slow
def test_inference(measure):
    [line] = measure("inference.py", *SMALL)
    assert set(line["seconds"]) == {"without_masks", "with_masks", "exported"}
    assert line["boxes"] == 100
    assert line["masks"] == [1, 100, 28, 28]
    assert line["finite"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["train", "inference"])
def test_parts_add_up(measure, task):
    [line] = measure("parts.py", *SMALL, f"--task={task}", "--profiled=1")
    parts = line["parts"]
    assert sum(row["share"] for row in parts.values()) == pytest.approx(1, abs=0.01)
    assert sum(row["gflop"] for row in parts.values()) == pytest.approx(line["gflop"], abs=0.05)
    directions = ("forward", "backward") if task == "train" else ("forward",)
    for part in ("backbone", "pyramid", "rpn", "box head", "mask head"):
        for direction in directions:
            assert parts[f"{part}, {direction}"]["layers_s"] > 0
    others = sum(row["others_s"] for row in parts.values())
    assert others / line["seconds"]["profiled"] == pytest.approx(line["share_of_others"], abs=0.01)
    assert all(rate > 0 for rate in line["gflop_per_s"].values())


@pytest.mark.slow
def test_ground_truth(measure):
    [line] = measure("ground_truth.py", "--images=5")
    assert line["objects"] > 5
    assert set(line["annotation_file"]) == set(line["records"]) == {"seconds", "added_mib"}


@pytest.mark.slow
def test_input_pipeline(measure):
    [line] = measure("input_pipeline.py", "--images=8", "--rounds=1")
    assert line["images_per_s"] > 0


@pytest.mark.slow
def test_growth(measure, tmp_path):
    lines = measure(
        "growth.py", "--axis=categories", "--task=inference", "--rounds=1",
        f"--log={tmp_path / 'log'}", f"--plot={tmp_path / 'plot.png'}",
    )  # fmt: skip
    assert [line["benchmark"] for line in lines] == ["inference"] * 3 + ["growth"]
    assert set(lines[-1]["seconds"]) == {"80", "300", "1200"}
    assert len(lines[-1]["slopes"]) == 2
    assert len((tmp_path / "log").read_text().splitlines()) == 3
    assert (tmp_path / "plot.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.skipif(
    "TORCHVISION_PYTHON" not in os.environ, reason="TORCHVISION_PYTHON names no Python"
)
@pytest.mark.parametrize("script", ["torchvision_train_step.py", "torchvision_inference.py"])
@pytest.mark.parametrize("flags", [(), ("--dtype=bfloat16", "--channels_last")])
def test_torchvision(measure, script, flags):
    python = os.environ["TORCHVISION_PYTHON"]
    [line] = measure(pathlib.Path("peers", script), *SMALL, *flags, python=python)
    json.dumps(line)
    assert line["contestant"] == "torchvision"
    if "train" in script:
        assert line["positives"] >= 20
        assert set(line["seconds"]["step"]) == SUMMARY
    else:
        assert line["boxes"] == 100
        assert set(line["seconds"]) == {"without_masks", "with_masks"}


@pytest.mark.slow
def test_near_duplicates(measure, tmp_path):
    rng = np.random.default_rng(0)
    for k in range(3):
        pixels = rng.integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 120)).save(tmp_path / f"{k}.png")
    [line] = measure("near_duplicates.py", f"--images={tmp_path}/*.png")
    assert (line["photos"], line["pairs"]) == (3, 3)
    assert min(line["least_distances"]) > line["max_distance"]
    assert line["altered"]["shades of gray"] == {"median": 0, "p95": 0, "most": 0, "within": 1}


@pytest.mark.slow
def test_edge(measure):
    [line] = measure(
        "edge.py", "--experiment=maskrcnn_lite0_fpn", "--input_size=64,96", "--rounds=1",
        "--files=litert_dynamic", "--max_instances=5",
    )  # fmt: skip
    assert line["file"] == "litert_dynamic"
    assert 5 < line["mb"] < 100
    assert set(line["ms"]) == {"1", "2"}
    assert all(taken["median"] > 0 for taken in line["ms"].values())
    assert "ap" not in line  # random weights
