"""What became of each picture of a request: the values of the output `detection_status`."""

OUTPUT = "detection_status"

DONE = 0  # its row is what was found
UNDECODABLE = 1  # not a picture, a broken one, or of a kind that docs/images.md refuses
TOO_LARGE = 2  # more pixels than the export takes; it was not decoded

MEANINGS = {
    DONE: "done",
    UNDECODABLE: "cannot be decoded",
    TOO_LARGE: "has more pixels than this model takes",
}
