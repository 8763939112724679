"""Seconds of torchvision's R50-FPN on the scene, without and with masks; as `../inference.py`.

PYTHON benchmarks/peers/torchvision_inference.py [--dtype=bfloat16 --channels_last]

Needs torch and torchvision, nothing of ours but scene and clocks. Prints one JSON line.
"""

import torch
import torchvision
import torchvision_network as network
from torchvision_network import scene

import timing  # isort: skip


def main() -> None:
    """Print the JSON line."""
    args = network.parser(__doc__).parse_args()
    model = network.build(trainable_layers=0, frozen_norms=True, args=args).eval()
    boxes = scene.boxes(args.height, args.width, scene.PROPOSALS)
    network.give_proposals(model, boxes, args)
    images = network.images(args)
    heads = model.roi_heads
    branch = {
        name: getattr(heads, name) for name in ("mask_roi_pool", "mask_head", "mask_predictor")
    }
    found = {}

    def detect(with_masks: bool):
        for name, part in branch.items():
            setattr(heads, name, part if with_masks else None)
        with torch.inference_mode(), network.autocast(args):
            features = model.backbone(images.tensors)
            proposals, _ = model.rpn(images, features)
            detections, _ = heads(features, proposals, images.image_sizes)
        network.wait(args)
        found["boxes"] = sum(len(image["boxes"]) for image in detections)
        if with_masks:
            found["masks"] = list(detections[0]["masks"].shape)

    runs = {"without_masks": lambda: detect(False), "with_masks": lambda: detect(True)}
    peak = {}
    for name, run in runs.items():
        run()
        peak[name] = timing.peak_memory_mib()
    taken = timing.in_turn(runs, args.rounds)
    timing.print_line(
        benchmark="inference",
        contestant="torchvision",
        args=vars(args),
        seconds={name: runs.summary() for name, runs in taken.items()},
        masks_over_none=round(taken["with_masks"].median / taken["without_masks"].median, 3),
        **found,
        peak_mib=peak,
        **network.device_memory(args),
        versions={"torch": torch.__version__, "torchvision": torchvision.__version__},
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
