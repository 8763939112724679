"""Mask R-CNN in TensorFlow: train on COCO-style data, evaluate as COCO does, serve as a SavedModel."""
