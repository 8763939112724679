"""Work on many machines by Apache Beam, whichever runner its options name."""
