"""Deals groups of images out to training and validation, so that both get a share of every class.

Greedy, after iterative stratification: first, for the rarest class that validation lacks, a group
that has it; then, as long as it helps, the group that brings validation's shares of images and of
each class's objects nearest to what is wanted. No group is taken that would leave training without
a class that several groups have.

Source: K. Sechidis, G. Tsoumakas, I. Vlahavas, On the Stratification of Multi-Label Data (2011).
  Differs: groups instead of single examples, and every class on both sides comes first.
"""

import numpy as np

_MOST_LOOKED_AT = 2000  # groups a step, so that large sets take minutes and not days


def choose_validation(
    counts: np.ndarray, sizes: np.ndarray, fraction: float, seed: int
) -> set[int]:
    """Choose the groups of validation.

    Args:
      counts: objects by group and class, int [groups, classes].
      sizes: images of each group, int [groups].
      fraction: of the images and objects that validation is to have, between 0 and 1.
      seed: of the order in which groups that are equally good are looked at.

    Returns:
      Places of the groups of validation: at least one, never all.

    Raises:
      ValueError: there are less than two groups.
    """
    num_groups = len(sizes)
    if num_groups < 2:
        raise ValueError("one group cannot be split")
    # Images without objects are a kind of their own.
    empty = np.where(counts.sum(axis=1) == 0, sizes, 0)
    shares = np.concatenate([counts, sizes[:, None], empty[:, None]], axis=1).astype(float)
    shares /= np.maximum(shares.sum(axis=0), 1)  # [groups, classes + 2], columns sum to 1 or 0
    weights = (shares.sum(axis=0) > 0).astype(float)
    weights[-2] = max(weights.sum() - 1, 1)  # images count as much as all the others together
    has_class = counts > 0
    num_with = has_class.sum(axis=0)
    left = np.random.default_rng(seed).permutation(num_groups)
    chosen: list[int] = []

    def take(candidates: np.ndarray, must_help: bool) -> bool:
        """Move the best of some groups to validation."""
        in_train = has_class[left].sum(axis=0)
        is_last = (in_train == 1) & (num_with > 1)
        is_single = num_with == 1  # of a class that one group has: training keeps it
        spoils = has_class[candidates] & (is_last | is_single)
        candidates = candidates[~spoils.any(axis=1)][:_MOST_LOOKED_AT]
        if len(left) < 2 or not candidates.size:
            return False
        have = shares[chosen].sum(axis=0)
        before = ((have - fraction) ** 2) @ weights
        after = ((have + shares[candidates] - fraction) ** 2) @ weights
        best = int(after.argmin())
        if must_help and after[best] >= before:
            return False
        chosen.append(int(candidates[best]))
        return True

    for column in np.argsort(num_with, kind="stable"):
        if num_with[column] < 2 or has_class[chosen][:, column].any():
            continue
        take(left[has_class[left, column]], must_help=False)
        left = left[~np.isin(left, chosen)]
    while take(left, must_help=True):
        left = left[~np.isin(left, chosen)]
    if not chosen:  # every group is needed for training
        best = int(np.abs(shares[left, -2] - fraction).argmin())
        chosen.append(int(left[best]))
    return set(chosen)
