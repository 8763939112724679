"""torchvision's Mask R-CNN R50-FPN on the scene, as the files beside this one measure it."""

import argparse
import pathlib
import sys

import numpy as np
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.misc import FrozenBatchNorm2d

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import scene  # noqa: E402


def parser(description: str) -> argparse.ArgumentParser:
    """Flags of both measurements."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--height", type=int, default=800)
    flags.add_argument("--width", type=int, default=1344)
    flags.add_argument("--batch", type=int, default=1)
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    flags.add_argument("--channels_last", action="store_true")
    flags.add_argument("--compile", action="store_true", help="torch.compile backbone and heads")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--rounds", type=int, default=5)
    return flags


def build(trainable_layers: int, frozen_norms: bool, args: argparse.Namespace) -> MaskRCNN:
    """Build it with random weights and damped residual branches, proposals replaced."""
    # Float32 products of a GPU in TF32, as XLA has them and torch its convolutions.
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d if frozen_norms else torch.nn.BatchNorm2d,
        trainable_layers=trainable_layers,
    )
    model = MaskRCNN(
        backbone,
        scene.CLASSES,
        rpn_pre_nms_top_n_train=2000,
        rpn_post_nms_top_n_train=scene.PROPOSALS,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_test=scene.PROPOSALS,
        box_score_thresh=0.0,
        box_detections_per_img=100,
    )
    with torch.no_grad():
        for name, module in model.backbone.named_modules():
            if name.endswith("bn3"):
                module.weight.fill_(0.2)
        model.roi_heads.box_predictor.cls_score.weight.normal_(std=0.05)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if args.compile:
        model.backbone = torch.compile(model.backbone)
        for name in ("box_head", "mask_head", "mask_predictor"):
            setattr(model.roi_heads, name, torch.compile(getattr(model.roi_heads, name)))
    return model.to(args.device)


def give_proposals(model: MaskRCNN, boxes: np.ndarray, args: argparse.Namespace) -> None:
    """Let the RPN do all of its work, then hand on `boxes` [P, (y1, x1, y2, x2)]."""
    fixed = torch.from_numpy(xyxy(boxes)).to(args.device)
    inner = model.rpn.forward

    def forward(images, features, targets=None):
        _, losses = inner(images, features, targets)
        return [fixed.clone() for _ in range(args.batch)], losses

    model.rpn.forward = forward


def xyxy(boxes: np.ndarray) -> np.ndarray:
    """From our order of coordinates to torchvision's."""
    return boxes[:, [1, 0, 3, 2]].copy()


def images(args: argparse.Namespace) -> ImageList:
    """Network input, which ours gets too: already normalised and padded."""
    size = (args.height, args.width)
    image = torch.from_numpy(scene.image(*size)).permute(2, 0, 1)[None]
    batch = image.repeat(args.batch, 1, 1, 1).contiguous()
    if args.channels_last:
        batch = batch.contiguous(memory_format=torch.channels_last)
    return ImageList(batch.to(args.device), [size] * args.batch)


def autocast(args: argparse.Namespace) -> torch.autocast:
    """Half precision as torch has it."""
    kind = torch.device(args.device).type
    return torch.autocast(kind, torch.bfloat16, enabled=args.dtype == "bfloat16")


def wait(args: argparse.Namespace) -> None:
    """Wait until the device has done its work."""
    if torch.device(args.device).type == "cuda":
        torch.cuda.synchronize()


def device_memory(args: argparse.Namespace) -> dict[str, float]:
    """Most memory of a GPU that was in use, {"device_peak_mib": ...}; {} on a CPU."""
    if torch.device(args.device).type != "cuda":
        return {}
    return {"device_peak_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1)}
