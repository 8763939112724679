"""The keypoints of a data set: their names, which of them a mirror exchanges, how they are joined.

All categories that have keypoints have the same ones, so that a network has one map for each. COCO
has them for one category, "person".
"""

import dataclasses
from typing import Any, TypeGuard

# Per keypoint, by how much annotators differ, in units of the square root of the object's area:
# COCO's `kpt_oks_sigmas`, by which OKS calls a keypoint near.
_COCO = {
    "nose": 0.026,
    **dict.fromkeys(("left_eye", "right_eye"), 0.025),
    **dict.fromkeys(("left_ear", "right_ear"), 0.035),
    **dict.fromkeys(("left_shoulder", "right_shoulder"), 0.079),
    **dict.fromkeys(("left_elbow", "right_elbow"), 0.072),
    **dict.fromkeys(("left_wrist", "right_wrist"), 0.062),
    **dict.fromkeys(("left_hip", "right_hip"), 0.107),
    **dict.fromkeys(("left_knee", "right_knee"), 0.087),
    **dict.fromkeys(("left_ankle", "right_ankle"), 0.089),
}
_OTHER = 0.05  # between COCO's wrists and eyes
_SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))

Edges = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class KeypointSet:
    """What the keypoints of a data set are called, in the order of its annotations.

    Attributes:
      names: K of them.
      skeleton: (k, k): positions, from 0 on, of keypoints that a drawing joins.
      classes: the network's numbers, 1..N-1, of the categories that have these keypoints.
    """

    names: tuple[str, ...]
    skeleton: Edges = ()
    classes: tuple[int, ...] = ()

    def mirrored(self) -> tuple[int, ...]:
        """Return which keypoint of an image its mirror image has at each place.

        Left and right change places: `left_eye` with `right_eye`. What has neither in its name, or
        no counterpart, stays.
        """
        position = {name: k for k, name in enumerate(self.names)}
        order = list(range(len(self.names)))
        for name, k in position.items():
            for left, right in _SIDES:
                other = position.get(name.replace(left, right))
                if left in name and other is not None and other != k:
                    order[k], order[other] = other, k
        return tuple(order)

    def sigmas(self) -> tuple[float, ...]:
        """Return how far off each keypoint may be: COCO's numbers for COCO's names, else 0.05.

        A keypoint that is off by twice its sigma, times the square root of the object's area, has a
        similarity of exp(-1/2).
        """
        return tuple(_COCO.get(name, _OTHER) for name in self.names)

    def as_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads, in values that JSON can say."""
        return {
            "names": list(self.names),
            "skeleton": [list(edge) for edge in self.skeleton],
            "classes": list(self.classes),
        }

    @classmethod
    def from_dict(cls, content: Any, num_classes: int) -> "KeypointSet":
        """Read what `as_dict` says.

        Args:
          content: a JSON value.
          num_classes: N, with background.

        Raises:
          ValueError: it is none; says why.
        """
        if not isinstance(content, dict):
            raise ValueError(f"keypoints: {str(content)[:40]!r} is no object")
        names = content.get("names")
        if not are_names(names):
            raise ValueError(f"keypoints: names {str(names)[:40]!r}, expected different texts")
        skeleton, classes = content.get("skeleton"), content.get("classes")
        if not are_edges(skeleton, 0, len(names)):
            raise ValueError(
                f"keypoints: skeleton {str(skeleton)[:40]!r}, expected pairs of 0..{len(names) - 1}"
            )
        if not isinstance(classes, list) or not all(
            type(k) is int and 1 <= k < num_classes for k in classes
        ):
            raise ValueError(
                f"keypoints: classes {str(classes)[:40]!r}, expected some of 1..{num_classes - 1}"
            )
        edges = tuple((a, b) for a, b in skeleton)
        return cls(tuple(names), edges, tuple(classes))


# COCO's persons; where the file counts from 1, positions here count from 0.
COCO_PERSON = KeypointSet(
    tuple(_COCO),
    (
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7)),
        *((6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
    (1,),
)


def are_names(value: Any) -> TypeGuard[list[str]]:
    """Whether a JSON value is a list of different names of keypoints, at least one."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(name, str) and name.strip() for name in value)
        and len(set(value)) == len(value)
    )


def are_edges(value: Any, first: int, count: int) -> TypeGuard[list[list[int]]]:
    """Whether a JSON value is a list of pairs of positions, `first` being that of the first."""
    return isinstance(value, list) and all(
        isinstance(edge, list)
        and len(edge) == 2
        and all(type(k) is int and 0 <= k - first < count for k in edge)
        for edge in value
    )
