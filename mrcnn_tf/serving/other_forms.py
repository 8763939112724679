"""Writes what is found in the forms of other tools, beside detections.json."""

import collections
import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mrcnn_tf.data.keypoint_set import KeypointSet
from mrcnn_tf.images import storage
from mrcnn_tf.results import coco, forms
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.results.found import Found, stem
from mrcnn_tf.serving.results_file import ResultsFile


class Written(NamedTuple):
    """What became of an image, to be handed to `OtherForms.add`.

    Attributes:
      name: of the image.
      size_hw: (height, width) of it.
      annotations: its rows of COCO's file.
      num_empty: objects whose mask has no pixel, which no form can hold.
    """

    name: str
    size_hw: tuple[int, int]
    annotations: list[dict[str, Any]]
    num_empty: int


class OtherForms(contextlib.AbstractContextManager):
    """The forms that `--results` names, in a folder each; a context manager.

    Attributes:
      num_empty: objects whose mask has no pixel, and which are left out.
    """

    def __init__(
        self,
        names: Sequence[str],
        categories: Mapping[int, str],
        output_dir: str,
        score_threshold: float,
        keypoints: KeypointSet | None = None,
    ):
        """Prepare.

        Args:
          names: of `forms.NAMES`.
          categories: names by the data set's own ids.
          output_dir: each form gets a folder of its name in it.
          score_threshold: objects of this score or a better one are written.
          keypoints: of the categories, if some have any.

        Raises:
          ValueError: a form cannot hold these categories.
        """
        self.num_empty = 0
        self._threshold = score_threshold
        self._categories = categories
        self._keypoints = keypoints
        self._folders = {name: os.path.join(output_dir, name) for name in names}
        self._of_images = {
            name: forms.OF_IMAGES[name](categories, folder)
            for name, folder in self._folders.items()
            if name != forms.COCO
        }
        self._images: list[tuple[str, int, int]] = []
        self._coco: ResultsFile | None = None

    def check(self, images: Sequence[tuple[str, str]]) -> None:
        """Look whether every image would have files of its own.

        Args:
          images: (name, path) of each.

        Raises:
          ValueError: two would share one.
        """
        strict = [name for name, form in self._of_images.items() if form.one_per_stem]
        if not strict:
            return
        stems = collections.Counter(stem(name) for name, _ in images)
        for name, count in stems.items():
            if count > 1:
                alike = [image for image, _ in images if stem(image) == name]
                raise ValueError(
                    f"--results={strict[0]}: {' and '.join(alike[:3])} would share one file: "
                    "rename one, or predict them apart"
                )

    def __enter__(self) -> "OtherForms":
        for name, form in self._of_images.items():
            for path, content in form.of_classes():
                storage.write(os.path.join(self._folders[name], path), content)
        if forms.COCO in self._folders:
            path = os.path.join(self._folders[forms.COCO], coco.FILE)
            storage.make_folder(self._folders[forms.COCO])
            head = coco.head(self._categories, self._keypoints)
            self._coco = ResultsFile(path, head, lambda: coco.tail(self._images))
            self._coco.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._coco is not None:
            self._coco.__exit__(*error)

    def write(
        self, name: str, path: str, pixels: np.ndarray, detections: Sequence[Detection]
    ) -> Written:
        """Write the files of an image; may be called from several threads.

        Args:
          name: of the image.
          path: of its file.
          pixels: uint8 [height, width, 3], upright.
          detections: all that was found, best first.

        Returns:
          What `add` is to be given.

        Raises:
          ValueError: a form cannot hold what was found.
          OSError: a file cannot be written.
        """
        good = [one for one in enumerate(detections) if one[1].score >= self._threshold]
        kept = [(k, one) for k, one in good if one.mask is None or one.mask_crop().pixels.size]
        found = Found(name, path, pixels, kept)
        for form_name, form in self._of_images.items():
            for file, content in form.of_image(found):
                storage.write(os.path.join(self._folders[form_name], file), content)
        rows = coco.annotations(found) if forms.COCO in self._folders else []
        return Written(name, (pixels.shape[0], pixels.shape[1]), rows, len(good) - len(kept))

    def add(self, written: Written) -> None:
        """Add an image to COCO's file, in the order in which images are to be there."""
        self.num_empty += written.num_empty
        if self._coco is None:
            return
        self._images.append((written.name, *written.size_hw))
        image_id = len(self._images)
        for row in written.annotations:
            self._coco.add({"id": self._coco.num_rows + 1, "image_id": image_id, **row})
