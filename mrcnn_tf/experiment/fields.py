"""What an experiment may say of network and data: typed fields with the paper's numbers.

Every number stands here once. The layers take these fields as keyword arguments of the same names,
with these defaults; schedule and run are in `experiment.py`. An experiment is a YAML file in
`experiments/` that states only how it differs; `loading.py` puts defaults, preset (`presets.py`),
file and command line together and has `checks.py` look at the whole.

This module imports nothing, so that a network can be built without tf-models-official.

Section numbers are those of Mask R-CNN (arXiv 1703.06870v3); FPN is arXiv 1612.03144, Faster R-CNN
arXiv 1506.01497.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

# The parts of a network that `task.init_checkpoint_modules` may name.
MODULES = ("backbone", "pyramid", "rpn", "roi_heads")


class Fields:
    """What all groups of fields can do; Model Garden's configs have methods of the same names."""

    def override(self, values: Mapping[str, Any]) -> None:
        """Set the fields that `values` names, nested like the fields; others stay.

        Raises:
          AttributeError: there is no such field.
        """
        for name, value in values.items():
            current = getattr(self, name)
            if isinstance(value, Mapping) and hasattr(current, "override"):
                current.override(value)
            else:
                setattr(self, name, tuple(value) if isinstance(value, list) else value)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, nested."""
        return {
            name: value.as_dict() if hasattr(value, "as_dict") else value
            for name, value in vars(self).items()
        }


@dataclasses.dataclass
class Pixels(Fields):
    """From a stored image to the network's input.

    Attributes:
      order: "rgb" or "bgr", the channel order the backbone's weights want.
      mean: subtracted per channel, in that order, on the 0..255 scale.
      std: divided by per channel, on the 0..255 scale.
      resize: "detectron2" (antialiased on bytes, size int(x + 0.5)) or "torchvision" (after
        normalising, not antialiased, size floor(x)).
    """

    order: str = "bgr"
    mean: tuple[float, ...] = (103.939, 116.779, 123.68)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resize: str = "detectron2"


@dataclasses.dataclass
class Backbone(Fields):
    """The network that makes the features (section 3.1, "Network Architecture").

    Attributes:
      type: an entry of `modeling/backbones.py`: "resnet" or "efficientnet_lite0"; what follows up
        to `stride_in_1x1` is for "resnet".
      depth: 18, 34, 50, 101 or 152.
      base_width: channels of the stem; 64 in every published network.
      groups: of the 3x3 convolutions; more than 1 is a ResNeXt.
      width_per_group: 32 groups of 8 are X101-32x8d.
      stride_in_1x1: a bottleneck's stride sits in its first 1x1 (MSRA, Keras, the paper) rather
        than in its 3x3 (torchvision).
      norm: "frozen_batch_norm", "batch_norm", "sync_batch_norm" or "group_norm".
      norm_epsilon: added to the variance.
      norm_momentum: of the moving statistics; unused by frozen and group norm.
      freeze_at: 0 trains everything, 1 freezes the stem, 2 the stem and stage 2, ...
      weights: "imagenet" starts from what the entry has, "" from random numbers, "auto" from the
        former if it fits and can be had, else from the latter, and prints which.
        `task.init_checkpoint` comes on top of each.
    """

    type: str = "resnet"
    depth: int = 50
    base_width: int = 64
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = True
    norm: str = "frozen_batch_norm"
    norm_epsilon: float = 1.001e-5
    norm_momentum: float = 0.9
    freeze_at: int = 2
    weights: str = "imagenet"


@dataclasses.dataclass
class FPN(Fields):
    """Feature pyramid (FPN section 3); P6 is P5 subsampled.

    Attributes:
      channels: of every level.
      norm: normalisation after each convolution; "" for none, as the paper.
      frozen: does not train, for the later steps of alternating training, which share it.
    """

    channels: int = 256
    norm: str = ""
    frozen: bool = False


@dataclasses.dataclass
class RPN(Fields):
    """Region proposal network (section 3.1; Faster R-CNN section 3; FPN section 4.1).

    Attributes:
      anchor_sizes: sides of the square anchors, in input pixels: 5 scales. FPN has one on each of
        P2..P6, others have all at every place.
      anchor_ratios: height / width: 3 ratios.
      conv_layers: 3x3 convolutions of the head.
      anchors_rounded: base anchors rounded to whole pixels (torchvision).
      anchor_offset: centre of an anchor in units of the stride (0: the cell's corner).
      anchor_strides: "level" spaces anchors by 2**level, "grid" by canvas // feature size
        (torchvision), which differs on P6 where the canvas is no multiple of 64.
      positive_iou: an anchor is positive from here on.
      negative_iou: an anchor is negative below.
      anchors_per_image: sampled for the loss.
      positive_fraction: at most this part of them positive.
      pre_nms_top_k_train: best anchors per level before NMS; Detectron has 12000 and 6000 for C4.
      pre_nms_top_k_test: the same at inference.
      post_nms_top_k_train: proposals per image after NMS.
      post_nms_top_k_test: the same at inference: 1000 for FPN, 300 for C4.
      nms_iou: per level.
      min_box_size: proposals with a smaller side, in pixels, are dropped.
      smooth_l1_beta: where the box loss turns from quadratic to linear; 0 is L1.
      ignore_anchors_across_border: in training, anchors that reach beyond the image (not its
        canvas) are neither positive nor negative, as in Faster R-CNN (section 3.3) and Detectron
        (`RPN_STRADDLE_THRESH: 0`), whose FPN has that too although the text of FPN (section 5.1)
        trains on them; without, they are anchors like others (Detectron2, torchvision).
      loss_normalizer: "sampled" divides by the anchors really sampled, "anchors_per_image" by
        their nominal number (Detectron2). They differ only if an image has too few anchors.
    """

    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    conv_layers: int = 1
    anchors_rounded: bool = False
    anchor_offset: float = 0.0
    anchor_strides: str = "level"
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    anchors_per_image: int = 256
    positive_fraction: float = 0.5
    pre_nms_top_k_train: int = 2000
    pre_nms_top_k_test: int = 1000
    post_nms_top_k_train: int = 2000
    post_nms_top_k_test: int = 1000
    nms_iou: float = 0.7
    min_box_size: float = 0.0
    smooth_l1_beta: float = 1.0 / 9.0
    ignore_anchors_across_border: bool = True
    loss_normalizer: str = "sampled"


@dataclasses.dataclass
class RoIAlign(Fields):
    """Pooling of RoI features (section 3, "RoIAlign").

    Attributes:
      type: "roi_align", or what the paper compares it with (table 2c): "roi_pool", which rounds
        edges and bins to whole pixels, or "roi_warp", which rounds edges and samples as RoIAlign.
      aligned: subtract half a pixel, so that the feature of pixel i sits at i + 0.5.
      sampling_ratio: samples per bin and axis; 2 x 2 is the paper's four. 0 is adaptive, as
        many as the bin has pixels (Detectron2).
      aggregate: "average" of a bin's samples, or their "max".
      log_epsilon: added to log2's argument when RoIs are assigned to levels (Detectron2).
      level_epsilon: added to log2's result instead (torchvision).
    """

    type: str = "roi_align"
    aligned: bool = True
    sampling_ratio: int = 2
    aggregate: str = "average"
    log_epsilon: float = 1e-8
    level_epsilon: float = 0.0


@dataclasses.dataclass
class BoxHead(Fields):
    """Classification and box regression of RoIs (section 3.1; Fast R-CNN).

    Attributes:
      pool_size: side of the RoI feature: 7 for FPN, 14 for C4 (in front of stage 5).
      fc_layers: hidden layers; C4 has none.
      fc_channels: of each.
      conv_layers: 3x3 convolutions in front of them: 0, or 4 in later recipes.
      conv_channels: of each.
      norm: after each convolution, as `backbone.norm`; "" for none.
      rois_per_image: N, sampled for training: 512 for FPN, 64 for C4 (section 3.1).
      positive_fraction: at most this part of them positive: a quarter is positives:negatives 1:3
        (section 3.1).
      positive_iou: a RoI is positive from IoU 0.5 on (section 3.1).
      regression_weights: of (dy, dx, dh, dw).
      smooth_l1_beta: as for the RPN.
      class_agnostic: one box per RoI for all classes, instead of one per class.
    """

    pool_size: int = 7
    fc_layers: int = 2
    fc_channels: int = 1024
    conv_layers: int = 0
    conv_channels: int = 256
    norm: str = ""
    rois_per_image: int = 512
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    regression_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    smooth_l1_beta: float = 1.0
    class_agnostic: bool = False


@dataclasses.dataclass
class Cascade(Fields):
    """Further box heads, each on the boxes of the one before (Cascade R-CNN, arXiv 1712.00726).

    The first is `box_head`; the others have its layers and weights of their own.

    Attributes:
      positive_ious: of each further head, what `box_head.positive_iou` is of the first: 0.6 and 0.7
        there. Empty for one head alone.
      regression_factors: of each further head, what the `box_head.regression_weights` are
        multiplied by: 2 and 3, since boxes that are better already are moved by less.
    """

    positive_ious: tuple[float, ...] = ()
    regression_factors: tuple[float, ...] = ()


@dataclasses.dataclass
class Federated(Fields):
    """A sigmoid per class, and the federated loss (CenterNet2, arXiv 2103.07461), for LVIS.

    Attributes:
      classes_per_image: so many classes are taught by each image in a step, background counting as
        one: those of its RoIs, and others that are drawn; 50 in CenterNet2, 0 for a softmax over
        all.
      frequency_power: they are drawn in proportion to this power of the number of training images
        that have them.
      image_lists: an image also teaches what its record says: always the classes that are known to
        be absent; those that are not annotated exhaustively by their own RoIs alone. Neither
        CenterNet2 nor Detectron2 reads it.
    """

    classes_per_image: int = 0
    frequency_power: float = 0.5
    image_lists: bool = True


@dataclasses.dataclass
class MaskHead(Fields):
    """Mask branch (figure 4 right).

    Attributes:
      type: "fcn", or "mlp" of fully connected layers (table 2e), see `modeling/mask_heads.py`; what
        of the following is for one of them only says so.
      classes: "independent", a mask per class by a sigmoid; "agnostic", one for all (section 4.2);
        or "softmax", in which classes compete (table 2b). See `modeling/mask_classes.py`.
      mask_size: m, the side of a mask: 28 for FPN, whose RoI feature has half of it; 14 for C4.
      conv_layers: of an FCN: 3x3 convolutions before the deconvolution; C4 has none.
      conv_channels: of an FCN: of each and of the deconvolution.
      norm: of an FCN: after each 3x3 convolution, as `backbone.norm`; "" for none.
      fc_layers: of an MLP: hidden layers.
      fc_channels: of an MLP: of each.
      target: how the RoI ∩ its mask is sampled: "detectron2" (aligned, then >= 0.5) or
        "torchvision" (not aligned, kept as a number in 0..1); see `ops/masks.py`.
      target_sampling_ratio: samples per target pixel and axis; odd for binary targets, see there.
        0 is adaptive (Detectron2 and torchvision).
    """

    type: str = "fcn"
    classes: str = "independent"
    mask_size: int = 28
    conv_layers: int = 4
    conv_channels: int = 256
    norm: str = ""
    fc_layers: int = 2
    fc_channels: int = 1024
    target: str = "detectron2"
    target_sampling_ratio: int = 3


@dataclasses.dataclass
class PointRend(Fields):
    """A mask branch that decides points, in the place of `mask_head` (PointRend, arXiv 1912.08193).

    Of `mask_head` it reads `target` and `target_sampling_ratio`, for the coarse masks.

    Attributes:
      num_points: per RoI in training: 196 there. 0 for no PointRend.
      oversampling: k, candidates for each of them.
      uncertain_fraction: beta, the part of them that is taken from the candidates for being
        uncertain; the others are drawn uniformly.
      on_refined_boxes: the branch learns on the boxes that the box head makes of the positive RoIs
        (Detectron2), as it will see them at inference, rather than on the RoIs.
      coarse_size: side of the coarse mask.
      coarse_channels: of the convolution that halves the RoI feature, which has twice that side.
      coarse_fc_layers: hidden layers behind it.
      coarse_fc_channels: of each.
      fc_layers: hidden layers of the points' head.
      fc_channels: of each.
      first_size: side of the mask that is computed at all points first. (There 7, doubled as long
        as all points are computed anyway.)
      subdivisions: how many times that side is then doubled: 28 to 224.
      points_per_subdivision: points that are computed anew each time.
    """

    num_points: int = 0
    oversampling: int = 3
    uncertain_fraction: float = 0.75
    on_refined_boxes: bool = True
    coarse_size: int = 7
    coarse_channels: int = 256
    coarse_fc_layers: int = 2
    coarse_fc_channels: int = 1024
    fc_layers: int = 3
    fc_channels: int = 256
    first_size: int = 28
    subdivisions: int = 3
    points_per_subdivision: int = 784


@dataclasses.dataclass
class MaskScoring(Fields):
    """A head that says how good a mask is (Mask Scoring R-CNN, arXiv 1903.00241).

    Attributes:
      conv_layers: 3x3 convolutions, the last of stride 2: 4 there. 0 for no mask scoring.
      conv_channels: of each.
      fc_layers: hidden layers behind them.
      fc_channels: of each.
    """

    conv_layers: int = 0
    conv_channels: int = 256
    fc_layers: int = 2
    fc_channels: int = 1024


@dataclasses.dataclass
class KeypointHead(Fields):
    """Keypoint branch (section 5), beside the others.

    Attributes:
      num_keypoints: K, as many as the label map has: 17 for COCO's persons. 0 for no such branch.
      pool_size: side of the RoI feature; the map of a keypoint is four times as long: 56.
      conv_layers: 3x3 convolutions before the deconvolution: 8.
      conv_channels: of each.
    """

    num_keypoints: int = 0
    pool_size: int = 14
    conv_layers: int = 8
    conv_channels: int = 512


@dataclasses.dataclass
class Detection(Fields):
    """Inference (section 3.1, "Inference").

    Attributes:
      score_threshold: boxes below are dropped.
      nms_iou: of boxes of one class that overlap by more, the better stays.
      min_box_size: boxes with a smaller side, in pixels, are dropped before (torchvision).
      soft_nms_sigma: 0 drops overlapping boxes; above, their scores fall by exp(-IoU^2 / sigma)
        instead (Soft-NMS, arXiv 1704.04503, which has 0.5).
      mask_paste: how an M x M mask is resized to its box: "pixel_centres" (Detectron2) or
        "torchvision", see `ops/paste.py`.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    min_box_size: float = 0.0
    soft_nms_sigma: float = 0.0
    mask_paste: str = "pixel_centres"


@dataclasses.dataclass
class Model(Fields):
    """The network.

    Attributes:
      system: "mask_rcnn", "faster_rcnn" (without the mask branch) or "rpn" (proposals only).
      features: what RPN and heads look at: "fpn" or "c4" (section 3.1, "Network Architecture"),
        "c5" of stride 32 (table 2d), or "dc5", which is C5 with dilation in place of its stride.
      proposals: "rpn", made by the network itself and trained jointly, or "file", read from what an
        RPN trained separately has written (`train_data.proposals`).
      preset: "paper", "torchvision" or "detectron2": sets every convention that trained weights
        carry. What an experiment states itself wins over its preset.
      num_classes: with background; 0 takes it from the label map beside the records.
      max_instances: objects per image: ground truth, detections and COCO's maxDets. The mask
        branch runs on this many boxes.
      ignore_crowds: anchors and RoIs on crowd regions are neither positive nor negative; without,
        they are negatives, as in Detectron2 and torchvision, which drop crowds.
    """

    system: str = "mask_rcnn"
    features: str = "fpn"
    proposals: str = "rpn"
    preset: str = "paper"
    num_classes: int = 0
    max_instances: int = 100
    ignore_crowds: bool = True
    pixels: Pixels = dataclasses.field(default_factory=Pixels)
    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    fpn: FPN = dataclasses.field(default_factory=FPN)
    rpn: RPN = dataclasses.field(default_factory=RPN)
    roi_align: RoIAlign = dataclasses.field(default_factory=RoIAlign)
    box_head: BoxHead = dataclasses.field(default_factory=BoxHead)
    federated: Federated = dataclasses.field(default_factory=Federated)
    cascade: Cascade = dataclasses.field(default_factory=Cascade)
    mask_head: MaskHead = dataclasses.field(default_factory=MaskHead)
    point_rend: PointRend = dataclasses.field(default_factory=PointRend)
    mask_scoring: MaskScoring = dataclasses.field(default_factory=MaskScoring)
    keypoint_head: KeypointHead = dataclasses.field(default_factory=KeypointHead)
    detection: Detection = dataclasses.field(default_factory=Detection)


@dataclasses.dataclass
class ColorJitter(Fields):
    """How far the colours of training images move at random; 0 leaves a property alone.

    Attributes:
      brightness: RGB times a number from 1 - this to 1 + this.
      contrast: distance from the image's mean grey, likewise.
      saturation: distance from the pixel's own grey, likewise.
      hue: turned by up to this part of the colour circle, either way.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


@dataclasses.dataclass
class CopyPaste(Fields):
    """Simple Copy-Paste (arXiv 2012.07177): objects of a second image are pasted onto the first.

    Attributes:
      probability: of a training image to have objects of another pasted onto it; there 1. 0 for no
        pasting.
      min_pixels: an object that is covered in part is dropped if no more pixels of it are left,
        counted in the network's input, and its box has changed.
      max_box_shift: by more than this, in pixels, at one of its edges.
    """

    probability: float = 0.0
    min_pixels: int = 300
    max_box_shift: float = 10.0


@dataclasses.dataclass
class TTA(Fields):
    """Test-time augmentation: each image is looked at several times, see `modeling/tta.py`.

    Evaluation does it if this is set; of an export it is asked for (`predict --tta`).

    Attributes:
      short_edges: the image is looked at in these sizes. The longest long edge grows with them: it
        is `validation_data.long_edge` where one is `validation_data.short_edges[0]`. Empty for no
        test-time augmentation; Detectron2 has 400, 500, ... 1200.
      flips: at each size also at its mirror image.
    """

    short_edges: tuple[int, ...] = ()
    flips: bool = True


@dataclasses.dataclass
class Data(Fields):
    """Records and what happens to an image on its way into a batch.

    Attributes:
      is_training: shuffled, repeated and augmented; else each image once, in order.
      input_path: pattern of the record files, or several in a list; label_map.json lies in their
        folder. Any file system of `tf.io.gfile` will do.
      tfds_name: instead of it, a data set of TensorFlow Datasets that `data_prep/tfds` built,
        "coco_folder/photos" for one; see docs/tfds.md.
      tfds_split: which of its splits, "train" for one; several are joined by "+".
      tfds_data_dir: TFDS's folder of data sets; "" for its own, ~/tensorflow_datasets.
      global_batch_size: images per step over all replicas; 0 takes `images_per_replica` times
        the number of replicas.
      images_per_replica: "2 images per GPU" (section 3.1).
      images_per_update: gradient accumulation: so many images, a multiple of the batch that the two
        fields above give, are one step. They go through the network batch by batch, and then the
        weights change. Not with norms over the batch. 0 for one batch a step.
      short_edges: the short edge is resized to one of these, drawn per image.
      long_edge: the long edge is at most this.
      canvas: "bucket" draws batches from a short list of padded sizes, "exact" pads each image
        to the next multiple of 32 only.
      flip_probability: of a horizontal flip.
      scale_jitter: (smallest, largest) factor on the size that `short_edges` and `long_edge` give;
        of the scaled image at most a square of `long_edge`, at a random place, is seen. Large-
        scale jitter of Simple Copy-Paste (arXiv 2012.07177): 0.1, 2.0 with both edges 1024. Empty
        for none.
      color_jitter: of brightness, contrast, saturation and hue.
      copy_paste: objects of other images pasted onto training images, with `scale_jitter`.
      repeat_threshold: repeat-factor sampling (LVIS, arXiv 1908.03195, which has 0.001): images
        with a category that less than this part of all images has are repeated, sqrt(this / part)
        times an epoch; 0 for none.
      mask_arena_pixels: most mask pixels of one image; objects beyond keep box and class only.
      enable_tf_data_service: training images are read and decoded by the workers of a tf.data
        service, which see the files under the same names; see docs/many-machines.md.
      tf_data_service_address: of its dispatcher, "grpc://host:port".
      tf_data_service_job_name: begins the name under which the service knows this run.
      seed: of the order of training images, and of augmentation.
      proposals: folder that `write_proposals` made for these records, where the network makes none.
      verify_records: before anything else, all records are read and held against their checksums;
        `--verify_records` sets it for both sets. Names and lengths of files always are.
      skip_corrupt_records: so many places with damaged records are left out of training, named and
        counted; more are an error. All records are read before the first step to find them.
    """

    is_training: bool = False
    input_path: str | tuple[str, ...] = ""
    tfds_name: str = ""
    tfds_split: str = ""
    tfds_data_dir: str = ""
    global_batch_size: int = 0
    images_per_replica: int = 2
    images_per_update: int = 0
    short_edges: tuple[int, ...] = (800,)
    long_edge: int = 1333
    canvas: str = "bucket"
    flip_probability: float = 0.0
    scale_jitter: tuple[float, ...] = ()
    color_jitter: ColorJitter = dataclasses.field(default_factory=ColorJitter)
    copy_paste: CopyPaste = dataclasses.field(default_factory=CopyPaste)
    repeat_threshold: float = 0.0
    mask_arena_pixels: int = 2**25
    enable_tf_data_service: bool = False
    tf_data_service_address: str | None = None
    tf_data_service_job_name: str | None = None
    seed: int = 0
    proposals: str = ""
    verify_records: bool = False
    skip_corrupt_records: int = 0
