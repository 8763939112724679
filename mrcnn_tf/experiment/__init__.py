"""What an experiment may say, and putting one together."""
