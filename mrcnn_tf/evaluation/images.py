"""The images of a ground truth, and which of them have been added to an evaluation."""

import numpy as np

from mrcnn_tf.evaluation import detections


class Images:
    """Finds images by the text of their id, so int ids, text ids and 64-bit ids all work.

    Args:
      truth: the ground truth, from `evaluation/ground_truth.py`.
    """

    def __init__(self, truth: dict[str, list[dict]]) -> None:
        # Ascending ids, as pycocotools sorts them: images that tie in score count in this order.
        ordered = sorted(truth["images"], key=lambda i: (isinstance(i["id"], str), i["id"]))
        self._images = {str(image["id"]): image for image in ordered}
        self._number = {image_id: k for k, image_id in enumerate(self._images)}
        self.reset()

    def __len__(self) -> int:
        """Images of the ground truth."""
        return len(self._images)

    @property
    def num_added(self) -> int:
        """Images that were added since the last reset."""
        return len(self._added)

    @property
    def num_missing(self) -> int:
        """Images that were not."""
        return len(self._images) - len(self._added)

    def reset(self) -> None:
        """Forget what was added."""
        self._added: set[str] = set()

    def added(self) -> list[str]:
        """Return the ids, as text, of the images that were added since the last reset."""
        return sorted(self._added)

    def find(self, image_id: int | str) -> dict:
        """Return an image's ground-truth entry; it has to be there."""
        return self._images[str(image_id)]

    def number(self, image_id: int | str) -> int:
        """Return an image's place in the order of the ids, which names it to pycocotools."""
        return self._number[str(image_id)]

    def in_order(self) -> list[dict]:
        """Return all ground-truth entries by their numbers."""
        return list(self._images.values())

    def numbered(self) -> list[dict]:
        """Return all ground-truth entries, each with its number as its id."""
        return [{**image, "id": self._number[text]} for text, image in self._images.items()]

    def add(self, text: str) -> dict:
        """Note that an image is there and return its ground-truth entry.

        Raises:
          ValueError: it is not in the ground truth, or was added before.
        """
        if text not in self._images:
            known = ", ".join(list(self._images)[:3])
            raise ValueError(
                f"image {text!r} is not in the ground truth, whose {len(self._images)} images "
                f"are {known}, ...: are records and annotations of the same data set?"
            )
        if text in self._added:
            raise ValueError(f"image {text!r} was added before")
        self._added.add(text)
        return self._images[text]

    def add_row(self, source_id: np.ndarray, original_size_hw: np.ndarray) -> dict | None:
        """Do the same for one row of a batch; None for a filler (all-zero source id).

        Args:
          source_id: uint8 [SOURCE_ID_BYTES], zero-padded UTF-8.
          original_size_hw: [2], the stored image, pixels.

        Raises:
          ValueError: as `add`, or the image has another size than in the ground truth.
        """
        text = detections.decode_source_id(source_id)
        if not text:
            return None
        image = self.add(text)
        height, width = (int(side) for side in original_size_hw)
        if (height, width) != (image["height"], image["width"]):
            raise ValueError(
                f"image {text!r} is {height} x {width} (height x width), but "
                f"{image['height']} x {image['width']} in the ground truth"
            )
        return image
