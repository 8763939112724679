"""What `mrcnn_tf.predict` takes per image beyond the bare network.

R50-FPN with random weights that finds 100 objects in every image; JPEG photos of 960 x 1600, which
the network sees on a canvas of 800 x 1344; one image a call. The command's loop (read, decode,
resize, network, paste, write detections; with and without drawing, all 100 objects drawn) and the
exported network alone, on input that lies ready, take turns in one process.

    python benchmarks/predict.py

prints one JSON line: median seconds per image, the loop's ratio to the bare network, round by
round, and the spread of both.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile

import numpy as np
import scene
import timing

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

HEIGHT, WIDTH = 960, 1600
CANVAS = (800, 1344)


def write_photos(folder: pathlib.Path, count: int) -> None:
    """Draw smooth noise and write it as cameras do."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        pixels = np.clip(128 + 50 * scene.image(HEIGHT, WIDTH, seed=k), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03d}.jpg", quality=90)


def measure(folder: pathlib.Path, num_photos: int, rounds: int) -> dict:
    """Time bare network and loops in turn."""
    import random_detector
    import tensorflow as tf

    from mrcnn_tf.images import finding, reading
    from mrcnn_tf.serving import image_run, predictor, results_file

    photos = folder / "photos"
    write_photos(photos, num_photos)
    detect = predictor.Predictor(random_detector.export(folder / "exported"))
    images, _ = finding.find_images([str(photos)])
    prepared = [detect.prepare(reading.read(path)) for _, path in images]
    assert all(image.canvas_hw == CANVAS for image in prepared)
    counts = [int(detect.call([image])["num_detections"][0]) for image in prepared[:2]]

    def network() -> None:
        for image in prepared:
            detect.call([image])

    def loop(drawn_dir: str | None) -> None:
        run = image_run.ImageRun(detect, drawn_dir, 0.0)
        with results_file.ResultsFile(str(folder / "detections.json")) as results:
            run.process(images, 1, results, lambda count: None)
        assert not run.failures

    contestants = {
        "network": network,
        "nodraw": lambda: loop(None),
        "draw": lambda: loop(str(folder / "drawn")),
    }
    taken = timing.in_turn(contestants, rounds)
    seconds = {name: [s / num_photos for s in runs.seconds] for name, runs in taken.items()}
    ratios = {
        name: [a / b for a, b in zip(seconds[name], seconds["network"], strict=True)]
        for name in ("nodraw", "draw")
    }
    return {
        "benchmark": "predict",
        "photos": num_photos,
        "detections": counts[0],
        "seconds": {
            name: timing.Runs(values, taken[name].elsewhere).summary()
            for name, values in seconds.items()
        },
        "ratio": {n: round(statistics.median(values), 3) for n, values in ratios.items()},
        "ratios": {n: [round(min(v), 3), round(max(v), 3)] for n, v in ratios.items()},
        "peak_mib": timing.peak_memory_mib(),
        "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
    }


def main() -> None:
    """Measure in a folder that is removed, or kept if it is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="keeps the SavedModel for another run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.folder or temporary)
        timing.print_line(**measure(folder, args.photos, args.rounds))


if __name__ == "__main__":
    main()
