"""Annotation formats other than COCO, one file each, and what they share."""
