"""Training in several runs: separate and alternating, and what only they need."""
