"""The report of a run: what `python -m mrcnn_tf.report` puts together.

`scored.py` has everything that is calculated, from detections alone; `run_scored.py` gets them from
a checkpoint; `history.py` and `facts.py` read the run's folder; `advice.py` says in sentences what
follows; `report_page.py` is the page; `pixels.py` finds the images on it.
"""
