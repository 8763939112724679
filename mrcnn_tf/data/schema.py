"""The contract of the data path: every key of a record, of a decoded example and of a batch.

Shape letters: `B` images, `H W` canvas size, `G` padded ground-truth objects (`max_instances`),
`n` objects of one image (not padded), `S` bytes of the mask arena.

**Records** are `tf.train.Example`s with the feature names of the TF Object Detection API and of
Model Garden, so their records train here and ours train there. What they do not have is marked
(ours).

**Masks** never become full images and are never resampled on their way. Each object keeps the
pixels of its own integer crop, at the resolution of the stored image, as one bit each; all
objects of an image share one bit string, the *arena*. Where a crop lies in the network input is
said by a box of its own, the mask *frame*: resizing scales it, shifting moves it, and a flip makes
its `x1 > x2`. The value of the object's mask at the network-input pixel (i, j) is therefore

    row = floor((i + 0.5 - y1) * height / (y2 - y1)),  col likewise,  0 outside the crop

which is what nearest-neighbour resizing of the full mask would have put there.
`ops/masks.py` reads it.

Memory: an arena of S = 4 MiB holds 2**25 mask pixels, which is more than 100 objects that each
fill a 640 x 480 image (100 * 307,200 bits = 3.7 MiB). The same 100 objects as uint8 images at
800 x 1344 would need 107.5 MB, as bits 13.4 MB.
"""

# --- Records: one tf.train.Example per image -----------------------------------------------
IMAGE_ENCODED = "image/encoded"  # bytes: JPEG or PNG file
IMAGE_FORMAT = "image/format"  # bytes: b"jpeg" or b"png"
IMAGE_FILENAME = "image/filename"  # bytes: path relative to the image folder, UTF-8
IMAGE_SOURCE_ID = "image/source_id"  # bytes: the data set's image id, as text
IMAGE_KEY_SHA256 = "image/key/sha256"  # bytes: hex digest of the encoded image
IMAGE_HEIGHT = "image/height"  # int64: pixels
IMAGE_WIDTH = "image/width"  # int64: pixels

# One entry per object, clipped to the image, divided by its size: float32 in [0, 1].
BBOX_YMIN = "image/object/bbox/ymin"
BBOX_XMIN = "image/object/bbox/xmin"
BBOX_YMAX = "image/object/bbox/ymax"
BBOX_XMAX = "image/object/bbox/xmax"
CLASS_LABEL = "image/object/class/label"  # int64: the data set's own category id
CLASS_TEXT = "image/object/class/text"  # bytes: category name, UTF-8
IS_CROWD = "image/object/is_crowd"  # int64: 0 or 1
AREA = "image/object/area"  # float32: the annotation's area, pixels
MASK_PNG = (
    "image/object/mask"  # bytes per object: full-image PNG, non-zero inside (mask_format=png)
)
# Keypoints, where the data set has some: K entries per object, of all objects one after the other.
# Coordinates are COCO's (the middle of pixel i has i), divided by the image's size; not clipped.
KEYPOINT_X = "image/object/keypoint/x"  # float32 [n * K]; 0 where not annotated
KEYPOINT_Y = "image/object/keypoint/y"  # float32 [n * K]
# int64 [n * K]: 0 not annotated, 1 annotated but hidden, 2 seen
KEYPOINT_VISIBILITY = "image/object/keypoint/visibility"
KEYPOINT_TEXT = "image/object/keypoint/text"  # bytes [n * K]: names, UTF-8
KEYPOINT_NUM = "image/object/keypoint/num"  # int64 [n]: how many of an object's are annotated

OBJECT_ID = "image/object/id"  # (ours) int64: annotation id
# (ours) One bytes value: raw little-endian float64 [n, 5], (x, y, width, height, area) as the
# annotation has them: not clipped, not normalised, not rounded to float32. For scoring.
BBOX_AREA_FLOAT64 = "image/object/bbox_area_float64"
# (ours, mask_format=rle) int64 [n * 4]: (y, x, height, width) of each object's integer crop in
# pixels of the stored image: the smallest rectangle that holds its mask; all 0 if it has none.
MASK_CROP = "image/object/mask/crop"
# (ours, mask_format=rle) int64 [n]: how many runs of MASK_RUNS belong to each object.
MASK_NUM_RUNS = "image/object/mask/num_runs"
# (ours, mask_format=rle) int64: run lengths of all objects one after the other. Each object's runs
# cover its crop row by row, alternately outside and inside, starting outside (perhaps with 0), and
# sum to height * width of the crop.
MASK_RUNS = "image/object/mask/runs"
# (ours) Of a federated data set (LVIS), and only there: int64, the data set's own category ids.
NEG_CATEGORY_IDS = "image/neg_category_ids"  # known to be absent from the image
NOT_EXHAUSTIVE_CATEGORY_IDS = "image/not_exhaustive_category_ids"  # not every object is annotated

LABEL_MAP_FILE = "label_map.json"  # written beside the shards, see data/label_map.py

# --- A decoded example: one image, nothing padded (decoder -> augment -> preprocess) ----------
IMAGE = (
    "image"  # decoded: uint8 [h, w, 3] RGB. Batch: float32 [B, H, W, 3], normalised, 0 = padding
)
SOURCE_ID = "source_id"  # string []. Batch: uint8 [B, SOURCE_ID_BYTES], UTF-8, zero-padded
GT_BOXES = "gt_boxes"  # float32 [n, (y1, x1, y2, x2)], pixels. Batch: [B, G, 4], network input
GT_CLASSES = "gt_classes"  # int32 [n], contiguous, 1..N-1. Batch: [B, G], 0 = padding
GT_IS_CROWD = "gt_is_crowd"  # bool [n]. Batch: [B, G]
# The arena: uint8, bit k of the string is bit 7 - k % 8 of byte k // 8. Decoded: all crops row by
# row, one crop after the other, no gaps. Batch: [B, S], zeros behind the last crop.
GT_MASK_BITS = "gt_mask_bits"
GT_MASK_FRAMES = (
    "gt_mask_frames"  # float32 [n, (y1, x1, y2, x2)]. Batch: [B, G, 4]; x1 > x2: flipped
)
GT_MASK_SIZES = "gt_mask_sizes"  # int32 [n, (height, width)] of each crop. Batch: [B, G, 2]
# Only for a network with a keypoint head, K of them per object.
GT_KEYPOINTS = "gt_keypoints"  # float32 [n, K, (y, x)], pixels, continuous. Batch: [B, G, K, 2]
GT_KEYPOINTS_VALID = "gt_keypoints_valid"  # bool [n, K]: annotated, hidden or not. Batch: [B, G, K]
# Only where classes are learnt from federated annotations: bool [N]. Batch: [B, N].
NEG_CLASSES = "neg_classes"  # known to be absent from the image
NOT_EXHAUSTIVE_CLASSES = "not_exhaustive_classes"  # the image may have more than is annotated

# --- Batch only ---------------------------------------------------------------------------------
# Crowds come last in G, so they are the first to be left out.
GT_VALID = "gt_valid"  # bool [B, G]: the row is an object, not padding
GT_MASK_OFFSETS = "gt_mask_offsets"  # int32 [B, G]: position of each crop's first pixel, in bits
GT_MASKS_VALID = "gt_masks_valid"  # bool [B, G]: the object has a mask and it fitted into the arena
# What a batch says of each object: [B, G, ...].
OF_OBJECTS = (
    *(GT_BOXES, GT_CLASSES, GT_IS_CROWD, GT_VALID),
    *(GT_MASK_FRAMES, GT_MASK_SIZES, GT_MASK_OFFSETS, GT_MASKS_VALID),
    *(GT_KEYPOINTS, GT_KEYPOINTS_VALID),
)
IMAGE_SIZE_HW = "image_size_hw"  # float32 [B, (height, width)]: the resized image inside the canvas
# float32 [B, (height, width)]: the stored image; if it was cropped in training, that part of it
ORIGINAL_SIZE_HW = "original_size_hw"
NUM_DROPPED_OBJECTS = "num_dropped_objects"  # int32 [B]: objects beyond max_instances, left out
# Only where a detector trains or is scored on proposals from files, P of them per image.
PROPOSAL_BOXES = "proposal_boxes"  # float32 [n, (y1, x1, y2, x2)]. Batch: [B, P, 4], network input
PROPOSALS_VALID = "proposals_valid"  # bool [B, P]
# int32 [B]: objects whose mask did not fit into the arena beside the others: box and class are kept
NUM_DROPPED_MASKS = "num_dropped_masks"
IMAGE_KEY = "image_key"  # int32 [B]: fingerprint of the source id, seeds the image's random numbers

SOURCE_ID_BYTES = 128  # longest image id, in UTF-8 bytes. An all-zero id marks a filler image of
# evaluation's last batch: no objects, not to be scored.


def view_image(number: int) -> str:
    """Key of a batch with test-time augmentation: IMAGE in the size of this number, from 0 on."""
    return f"view{number}_image"


def view_size_hw(number: int) -> str:
    """Key of a batch with test-time augmentation: IMAGE_SIZE_HW of `view_image`."""
    return f"view{number}_size_hw"
