"""Input: records, decoding, augmentation, resizing, batching."""
