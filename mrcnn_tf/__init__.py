"""Mask R-CNN in TensorFlow: train on COCO-style data, score as COCO does, serve a SavedModel."""
