"""What scores are made of: pure functions from matched detections to numbers a report shows.

All start from `scoring.Rows`, ground truth and results in COCO's form (`CocoEvaluator.rows`), or
from the `Matches` that `matches.match` makes of them, and return plain dataclasses. A category is
its number 1..K of the rows, an image its number from 0 on.
"""
