"""Text that is markup, and text that becomes markup."""

import html
import unicodedata

# Characters that turn the direction of the text around them, so that a name reads as another one.
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Html(str):
    """Text that is markup already; any other text is escaped where it meets a page."""

    __slots__ = ()


def escape(text: object) -> Html:
    """Return text so that a browser shows it as it is, within an element or an attribute.

    Whole numbers get commas between thousands, other numbers three digits. Characters that
    cannot be shown (control characters, halves of surrogate pairs as in file names that are not
    UTF-8, characters that turn the direction of writing) are written as Python writes them.
    """
    if isinstance(text, Html):
        return text
    return Html(html.escape("".join(map(_visible, plain(text)))))


def plain(value: object) -> str:
    """Return a value as people read it: 12,345 and 0.123; None is a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
    return str(value)


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\n\t" or not (category in {"Cc", "Cs"} or character in _TURNING):
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
