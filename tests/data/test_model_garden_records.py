"""Records written by Model Garden's own converter are decoded as ours are."""

import numpy as np
import pytest
from pycocotools.coco import COCO

from mrcnn_tf.data import decoder, schema


@pytest.mark.slow
def test_model_garden_records_decode(shared):
    converter = pytest.importorskip("official.vision.data.create_coco_tf_record")
    folder = shared / "data/coco_small"
    coco = COCO(str(folder / "annotations/instances_val2017.json"))
    names = {k: c["name"] for k, c in coco.cats.items()}
    label_ids = tuple(sorted(names))
    num_compared = 0
    for image in list(coco.imgs.values())[:12]:
        annotations = coco.imgToAnns[image["id"]]
        example, num_skipped = converter.create_tf_example(
            image,
            [str(folder / "val2017")],
            bbox_annotations=annotations,
            id_to_name_map=names,
            include_masks=True,
        )
        if num_skipped:
            continue
        decoded = decoder.decode(
            example.SerializeToString(), label_ids=label_ids, include_masks=True
        )
        assert decoded[schema.SOURCE_ID].numpy() == str(image["id"]).encode()
        ids = [label_ids[k - 1] for k in decoded[schema.GT_CLASSES].numpy()]
        assert ids == [a["category_id"] for a in annotations]
        boxes = np.array([a["bbox"] for a in annotations]).reshape(-1, 4)[:, [1, 0, 3, 2]]
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(decoded[schema.GT_BOXES], boxes, atol=1e-3)
        bits = np.unpackbits(decoded[schema.GT_MASK_BITS].numpy()).astype(bool)
        start = 0
        for frame, annotation in zip(
            decoded[schema.GT_MASK_FRAMES].numpy().astype(int), annotations, strict=True
        ):
            mask = coco.annToMask(annotation).astype(bool)
            y1, x1, y2, x2 = frame
            crop = mask[y1:y2, x1:x2]
            np.testing.assert_array_equal(bits[start : start + crop.size], crop.ravel())
            assert crop.sum() == mask.sum()
            start += crop.size
        num_compared += len(annotations)
    assert num_compared > 20
