"""Seconds as people read them; without TensorFlow, whose import takes several of them."""


def duration(seconds: float) -> str:
    """Write seconds as `1h 05m`, `3m 20s` or `12s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
