"""A .tflite or .onnx file over many image files, without TensorFlow.

What is written is what `serving/image_run.py` writes.
"""

import sys
from collections.abc import Sequence

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.edge import device
from mrcnn_tf.images import finding, pillow_reader, storage
from mrcnn_tf.ops import coco_rle
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.serving import drawn, other_forms, output_folder, unread
from mrcnn_tf.serving.output_folder import OutputFolder
from mrcnn_tf.serving.results_file import ResultsFile


def detections_of(found: Sequence[device.Found], picture_hw: tuple[int, ...]) -> list[Detection]:
    """Return what a device found in a picture of that size as every other network's."""
    height, width = picture_hw
    return [
        Detection(
            one.box,
            one.score,
            one.category_id,
            one.category,
            None
            if one.mask is None
            else coco_rle.crop_to_rle(one.mask, one.top, one.left, height, width),
            one.mask_score,
        )
        for one in found
    ]


def run(
    model: str,
    patterns: Sequence[str],
    output_dir: str,
    score_threshold: float | None,
    draw_images: bool = True,
    forms: Sequence[str] = (),
    threads: int | None = None,
) -> int:
    """Predict on everything that the patterns name, and print what happens.

    Args:
      model: file that `python -m mrcnn_tf.export --format=litert` or `onnx` wrote.
      patterns: files, folders or globs, see `finding.find_images`.
      output_dir: made if absent.
      score_threshold: of what is drawn; None for the one that the file suggests.
      draw_images: whether images with what was found are written.
      forms: other forms in which results are wanted, of `results.forms.NAMES`.
      threads: to compute with.

    Returns:
      The exit code: 0, or 1 if an image failed.

    Raises:
      FileNotFoundError: no image, or no such file.
      ValueError: the file is not ours, or two images have the same name.
      ImportError: the file's runtime is not installed.
    """
    folder = OutputFolder(output_dir)
    images, others = finding.find_images(patterns, folder.written)
    print(f"{len(images)} image{'s' * (len(images) != 1)}; loading {model}", flush=True)
    network = device.load(model, threads)
    score_threshold, why = output_folder.threshold(
        score_threshold, network.description.get("suggested_score_threshold")
    )
    names = {row["id"]: row["name"] for row in network.description["categories"]}
    in_forms = other_forms.OtherForms(forms, names, folder.forms, score_threshold)
    in_forms.check(images)
    storage.make_folder(folder.drawn if draw_images else output_dir)
    storage.remove(folder.unread)  # of an earlier run
    progress = ProgressBar("predicting", len(images), "images", stream=sys.stdout)
    failures: dict[str, str] = {}
    num_turned = 0
    try:
        with ResultsFile(folder.detections) as results, in_forms:
            for name, path in images:
                try:
                    pixels, turned = pillow_reader.read(storage.read(path))
                    num_turned += turned
                    found = detections_of(device.find(network, pixels), pixels.shape[:2])
                    for one in found:
                        results.add(one.to_coco(name))
                    in_forms.add(in_forms.write(name, path, pixels, found))
                    if draw_images:
                        to = drawn.path_of(folder.drawn, name)
                        drawn.write(to, pixels, found, score_threshold)
                except Exception as error:  # the runtimes have classes of their own
                    failures[name] = " ".join(str(error).split())[:300] or type(error).__name__
                progress.add(1)
    except KeyboardInterrupt:
        progress.close()
        print(f"what was found until then is in {folder.detections}.incomplete")
        raise
    progress.close()
    output_folder.tell(
        folder,
        num_detections=results.num_rows,
        num_turned=num_turned,
        draws=draw_images,
        forms=forms,
        num_empty=in_forms.num_empty,
        score_threshold=score_threshold,
        why=why,
    )
    unread.tell(unread.list_all(others, failures), folder.unread)
    return 1 if failures else 0
