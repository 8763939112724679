"""Scores as readable text."""

from collections import Counter

from mrcnn_tf.evaluation.scoring import Scores

_MOST_LISTED = 200  # categories, one a line
_NAME_WIDTH = 30  # longest category name that keeps the columns of an 80-character terminal


def category_labels(categories: list[dict]) -> dict[int, str]:
    """Return a unique label per category id: its name, with the id if the name occurs twice."""
    uses = Counter(category["name"] for category in categories)
    return {
        c["id"]: c["name"] if uses[c["name"]] == 1 else f"{c['name']} ({c['id']})"
        for c in categories
    }


def category_table(truth: dict[str, list[dict]], scores: dict[str, Scores]) -> str:
    """Return a line per category that has objects, if not too many, then each kind's numbers.

    Args:
      truth: the ground truth, see `ground_truth.py`.
      scores: by kind ("box", "mask", "boundary", "keypoint").

    Returns:
      Text without a final line break; "-" where there is nothing to measure.
    """
    labels = category_labels(truth["categories"])
    objects = Counter(a["category_id"] for a in truth["annotations"] if not a["iscrowd"])
    crowds = sum(bool(a["iscrowd"]) for a in truth["annotations"])
    shown = [category_id for category_id in sorted(labels) if objects[category_id]]
    width = max([len("category"), *(min(len(labels[i]), _NAME_WIDTH) for i in shown)])
    cell = max(9, *(len(kind) + 5 for kind in scores))
    columns = "".join(f"{kind + ' AP':>{cell}}" for kind in scores)
    lines = [f"{'category':<{width}}{columns}{'objects':>9}"]
    listed = shown if len(shown) <= _MOST_LISTED else []
    for category_id in listed:
        # A category without keypoints has no score of them.
        values = [s.ap_by_category.get(category_id, -1.0) for s in scores.values()]
        cells = "".join(_number(value, cell) for value in values)
        name = labels[category_id][:_NAME_WIDTH]
        lines.append(f"{name:<{width}}{cells}{objects[category_id]:>9}")
    means = "".join(_number(s.summary["ap"], cell) for s in scores.values())
    lines.append(f"{'all':<{width}}{means}{sum(objects.values()):>9}")
    if crowds:
        lines[-1] += f" + {crowds} crowd regions"
    if len(listed) < len(shown):
        lines.append(f"({len(shown):,} categories, too many to list: see metrics.jsonl)")
    if len(shown) < len(labels):
        lines.append(f"({len(labels) - len(shown)} categories without objects are not listed)")
    heads: tuple[str, ...] = ()
    first = max(5, *(len(kind) for kind in scores))
    for kind, kind_scores in scores.items():
        if heads != tuple(kind_scores.summary):  # keypoints have others
            heads = tuple(kind_scores.summary)
            lines.append("\n" + " " * first + "".join(f"{_head(name):>7}" for name in heads))
        numbers = "".join(_number(v, 7) for v in kind_scores.summary.values())
        lines.append(f"{kind:<{first}}" + numbers)
    return "\n".join(lines)


def _number(value: float, width: int) -> str:
    return f"{value:>{width}.3f}" if value >= 0 else f"{'-':>{width}}"


def _head(name: str) -> str:
    """Return the column head of a summary number: "ap_small" becomes "AP s"."""
    measure, _, size = name.partition("_")
    return f"{measure.upper()} {size[:1]}".rstrip()
