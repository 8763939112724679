"""Seconds of one training step of torchvision's R50-FPN on the scene; as `../train_step.py`.

PYTHON benchmarks/peers/torchvision_train_step.py [--dtype=bfloat16 --channels_last]

Needs torch and torchvision, nothing of ours but scene and clocks. Prints one JSON line.
"""

import torch
import torchvision
import torchvision_network as network
from torchvision_network import scene

import timing  # isort: skip


def main() -> None:
    """Print the JSON line."""
    parser = network.parser(__doc__)
    parser.add_argument("--freeze_at", type=int, default=0, help="ours: 0 nothing, 2 stage 2")
    args = parser.parse_args()
    model = network.build(5 - args.freeze_at, frozen_norms=args.freeze_at > 0, args=args).train()
    size = (args.height, args.width)
    boxes, classes = scene.objects(*size, scene.OBJECTS, scene.CLASSES)
    proposals = scene.training_proposals(*size, scene.PROPOSALS, boxes)
    network.give_proposals(model, proposals, args)
    images = network.images(args)
    target = {
        "boxes": torch.from_numpy(network.xyxy(boxes)).to(args.device),
        "labels": torch.from_numpy(classes).to(args.device),
        "masks": torch.from_numpy(scene.masks(boxes, *size)).to(args.device),
    }
    targets = [target] * args.batch
    optimizer = torch.optim.SGD(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=1e-6,
        momentum=0.9,
        weight_decay=1e-4,
    )
    found = {"losses": []}
    sample = model.roi_heads.select_training_samples

    def counted(*args):
        sampled = sample(*args)
        found["positives"] = int((sampled[2][0] > 0).sum())
        return sampled

    def step():
        with network.autocast(args):
            features = model.backbone(images.tensors)
            proposals, losses = model.rpn(images, features, targets)
            _, of_heads = model.roi_heads(features, proposals, images.image_sizes, targets)
            loss = sum((losses | of_heads).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        found["losses"].append(round(float(loss.detach()), 4))
        network.wait(args)

    model.roi_heads.select_training_samples = counted
    step()
    model.roi_heads.select_training_samples = sample
    taken = timing.in_turn({"step": step}, args.rounds)
    timing.print_line(
        benchmark="train_step",
        contestant="torchvision",
        args=vars(args),
        seconds={name: runs.summary() for name, runs in taken.items()},
        **found,
        peak_mib=timing.peak_memory_mib(),
        **network.device_memory(args),
        versions={"torch": torch.__version__, "torchvision": torchvision.__version__},
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
