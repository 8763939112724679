"""What commands have in common: their flags, progress, durations, where files are."""
