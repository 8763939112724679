"""Mask R-CNN in TensorFlow: train on COCO-style data, score as COCO does, serve a SavedModel."""

__version__ = "0.2.0"
