"""Finds the shapes of a large generated picture in tiles and says what memory it took.

python tests/serving/large_picture_script.py FOLDER SIDE COUNT
"""

import json
import os
import pathlib
import resource
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from mrcnn_tf.results.detection import Detection
from mrcnn_tf.serving import image_run, tiles
from tests.serving import large_scene


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    folder, side, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    shapes = large_scene.scene(side, count)
    if "--write" in sys.argv:
        large_scene.write_png(folder / "large.png", shapes, side)
        return
    # Of its own, so that what it takes is not measured.
    subprocess.run([sys.executable, *sys.argv, "--write"], check=True)
    start = peak()
    run = image_run.ImageRun(
        large_scene.Seer(), str(folder / "drawn"), 0.5, tiling=tiles.Tiling(1024, 0.2)
    )
    results_path = folder / "detections.json"
    with image_run.ResultsFile(str(results_path)) as results:
        run.process([("large.png", str(folder / "large.png"))], 1, results, lambda _: None)
    if run.failures:
        sys.exit(str(run.failures))
    taken = peak()
    rows = json.loads(results_path.read_text())
    found = []
    for row in rows:
        x, y, w, h = row["bbox"]
        mask = row["segmentation"]
        mask["counts"] = mask["counts"].encode()
        box = large_scene.np.array([y, x, y + h, x + w])
        found.append(Detection(box, row["score"], row["category_id"], row["category"], mask))
    scores = [round(large_scene.score_of(k + 1), 6) for k in range(len(shapes))]
    assert [one.score for one in found] == scores
    found = [one._replace(score=large_scene.score_of(k + 1)) for k, one in enumerate(found)]
    large_scene.assert_found(shapes, found, side)
    print(json.dumps({"objects": len(found), "start_bytes": start, "peak_bytes": taken}))


if __name__ == "__main__":
    main()
