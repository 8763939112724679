"""Scripts that make records: from a COCO folder, and a synthetic data set to start with."""
