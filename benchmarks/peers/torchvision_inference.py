"""torchvision's maskrcnn_resnet50_fpn with and without its mask branch; see `mask_overhead.py`.

Needs torch and torchvision, nothing of ours but `scene.py`. Prints one JSON line.
"""

import argparse
import json
import pathlib
import sys

import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import scene
import timing


def main() -> None:
    """Time both in turn."""
    parser = argparse.ArgumentParser()
    for name in ("height", "width", "proposals", "classes", "rounds"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=args.classes,
        box_score_thresh=0.0,
    ).eval()
    size = (args.height, args.width)
    boxes = torch.from_numpy(scene.boxes(*size, args.proposals)[:, [1, 0, 3, 2]].copy())
    image = torch.from_numpy(scene.image(*size)).permute(2, 0, 1)[None].contiguous()
    images = ImageList(image, [size])
    with torch.no_grad():
        for name, module in model.backbone.named_modules():
            if name.endswith("bn3"):  # random weights of 16 blocks would overflow
                module.weight.fill_(0.2)
        model.roi_heads.box_predictor.cls_score.weight.normal_(std=0.05)
    heads = model.roi_heads
    branch = (heads.mask_roi_pool, heads.mask_head, heads.mask_predictor)

    def detect(with_masks: bool) -> dict:
        heads.mask_roi_pool, heads.mask_head, heads.mask_predictor = (
            branch if with_masks else (None, None, None)
        )
        with torch.inference_mode():
            features = model.backbone(images.tensors)
            model.rpn(images, features)
            found, _ = heads(features, [boxes], images.image_sizes)
        return found[0]

    count = len(detect(True)["boxes"])
    taken = timing.in_turn(
        {"without": lambda: detect(False), "with": lambda: detect(True)}, args.rounds
    )
    seconds = {name: of.seconds for name, of in taken.items()}
    line = {"boxes": count, "seconds": seconds, "peak_mib": timing.peak_memory_mib()}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
