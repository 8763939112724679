"""The training step, what it logs, and what ends it."""
