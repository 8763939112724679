"""Charts as inline SVG that follow the page's colours, in light and in dark.

Each is drawn 360 units wide with 11-unit text, and its box on a page is 336 to 480 pixels wide:
readable on a phone as on a desk. Pointing at a bar, a point or a cell shows its value where there
is a mouse; nothing needs it. Colours come from the page's style sheet.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mrcnn_tf.pages.markup import Html, escape, plain
from mrcnn_tf.pages.page import color_keys

_Numbers = Sequence[float] | np.ndarray

_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 8, 36  # margins of the plotting area
_LETTER = 6.0  # units that a letter of 11-unit text takes, on average
_ROW = 20  # height of a horizontal bar's row
_COLORS = 8  # of the style sheet: --s0 .. --s7
_DASHES = ("", "6 3", "2 3", "9 3 2 3")  # tell lines apart that share a colour or have none
_MAX_POINTS = 400  # of a line; longer ones are thinned, keeping the extremes of each stretch


def histogram(
    values: Sequence[float] | np.ndarray | Mapping[str, Sequence[float] | np.ndarray],
    title: str,
    x_label: str,
    *,
    bins: int = 20,
    log: bool = False,
    x_range: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    caption: str = "",
) -> Html:
    """Return a histogram.

    Args:
      values: numbers, or several named series of them, drawn as steps over each other.
      title: above it.
      x_label: what the values are, with their unit.
      bins: how many.
      log: whether bins are equally wide in the logarithm; values must be positive then.
      x_range: where the bins begin and end, by default with the values.
      marks: pairs (x, what) of vertical lines.
      caption: below it.
    """
    series = _named(values)
    everything = np.concatenate([*series.values(), [x for x, _ in marks]])
    x_axis = _axis(everything if x_range is None else x_range, log)
    if log:
        edges = np.geomspace(x_axis.low, x_axis.high, bins + 1)
    else:
        edges = np.linspace(x_axis.low, x_axis.high, bins + 1)
    counts = {name: np.histogram(of, edges)[0] for name, of in series.items()}
    y_axis = _axis(np.concatenate([[0], *counts.values()]), whole=True, from_zero=True)
    plot = _Plot(x_axis, y_axis, x_label, "")
    for k, (name, heights) in enumerate(counts.items()):
        what = f"{name}: " if len(counts) > 1 else ""
        for low, high, height in zip(edges[:-1], edges[1:], heights, strict=True):
            if height:
                text = f"{what}{plain(float(low))} to {plain(float(high))}: {int(height):,}"
                plot.bar(low, high, height, k, text, shared=len(counts) > 1)
    plot.marks(marks)
    return _figure(plot.svg(title), title, caption, list(series) if len(series) > 1 else [])


def bars(
    labels: Sequence[str],
    values: Sequence[float] | Mapping[str, Sequence[float]],
    title: str,
    x_label: str = "",
    *,
    caption: str = "",
) -> Html:
    """Return horizontal bars, one row a label, with the value beside each.

    Args:
      labels: of the rows, long ones are cut.
      values: one for each label, or several named series of them.
      title: above it.
      x_label: what the values are.
      caption: below it.

    Raises:
      ValueError: not one value for each label.
    """
    series = _named(values)
    if any(len(of) != len(labels) for of in series.values()):
        raise ValueError(f"{len(labels)} labels need as many values in each series")
    thick = _ROW if len(series) == 1 else 13 * len(series) + 6
    left = min(130.0, 10 + _LETTER * max((len(label) for label in labels), default=0))
    top_value = max((float(of.max()) for of in series.values() if of.size), default=0) or 1.0
    reach = _WIDTH - left - 52
    parts = []
    for row, label in enumerate(labels):
        y = _TOP + row * thick
        parts.append(_text(left - 6, y + thick / 2 + 4, _cut(label, left - 10), "end"))
        for k, (name, of) in enumerate(series.items()):
            value = float(of[row])
            height = (thick - 6) / len(series)
            place = y + 3 + k * height
            what = f"{label}, {name}" if len(series) > 1 else label
            parts.append(
                f'<rect x="{left:.1f}" y="{place:.1f}" height="{height - 1:.1f}" '
                f'width="{max(0.0, value) / top_value * reach:.1f}" fill="var(--s{k % _COLORS})">'
                f"<title>{escape(f'{what}: {_short(value)}')}</title></rect>"
            )
            parts.append(_text(
                left + max(0.0, value) / top_value * reach + 4, place + height / 2 + 3.5,
                _short(value), "start", soft=True,
            ))  # fmt: skip
    height = _TOP + thick * len(labels) + (22 if x_label else 6)
    if x_label:
        parts.append(_text(left, height - 5, x_label, "start", soft=True))
    svg = _svg(title, height, parts)
    return _figure(svg, title, caption, list(series) if len(series) > 1 else [])


def lines(
    series: Mapping[str, tuple[_Numbers, _Numbers]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    x_log: bool = False,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    points: bool = False,
    caption: str = "",
) -> Html:
    """Return lines.

    Args:
      series: {name: (x, y)}; values that are not finite leave a gap.
      title: above it.
      x_label: what x is, with its unit.
      y_label: likewise.
      x_log: whether x is logarithmic; it must be positive then.
      y_range: smallest and largest y to be shown, by default those of the values.
      marks: pairs (x, what) of vertical lines.
      points: whether the values are marked on the lines.
      caption: below it.
    """
    xs = np.concatenate([np.empty(0), *(_floats(x) for x, _ in series.values())])
    ys = np.concatenate([np.empty(0), *(_floats(y) for _, y in series.values())])
    x_axis = _axis(np.concatenate([xs, [x for x, _ in marks]]), x_log)
    plot = _Plot(x_axis, _axis(ys if y_range is None else y_range), x_label, y_label)
    for k, (name, (x, y)) in enumerate(series.items()):
        plot.line(_floats(x), _floats(y), k, name, points)
    plot.marks(marks)
    dashes = len(series) > 1
    return _figure(plot.svg(title), title, caption, list(series) if dashes else [])


def scatter(
    series: Mapping[str, tuple[_Numbers, _Numbers]],
    title: str,
    x_label: str,
    y_label: str,
) -> Html:
    """Return points.

    Args:
      series: {name: (x, y)}; values that are not finite are left out.
      title: above it.
      x_label: what x is, with its unit.
      y_label: likewise.
    """
    xs = np.concatenate([np.empty(0), *(_floats(x) for x, _ in series.values())])
    ys = np.concatenate([np.empty(0), *(_floats(y) for _, y in series.values())])
    plot = _Plot(_with_margin(_axis(xs)), _with_margin(_axis(ys)), x_label, y_label)
    for k, (x, y) in enumerate(series.values()):
        plot.points(_floats(x), _floats(y), k)
    return _figure(plot.svg(title), title, "", list(series) if len(series) > 1 else [])


def heat_map(
    values: np.ndarray | Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    row_label: str = "",
    column_label: str = "",
    *,
    shares: np.ndarray | None = None,
    caption: str = "",
) -> Html:
    """Return a matrix whose cells are the darker the larger they are, such as a confusion matrix.

    Args:
      values: [r, c], written into the cells where there is room.
      rows: r names; none, as for a map of places, leaves more room.
      columns: c names; likewise.
      title: above it.
      row_label: what the rows are.
      column_label: what the columns are.
      shares: [r, c] of 0..1, how dark each cell is; by default its value's share of the largest.
      caption: below it.

    Raises:
      ValueError: not as many names as rows or columns.
    """
    matrix = np.asarray(values, np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"a heat map is a matrix, not {list(matrix.shape)}")
    named_sizes = [(len(rows), matrix.shape[0]), (len(columns), matrix.shape[1])]
    if any(names and names != size for names, size in named_sizes):
        raise ValueError(f"{len(rows)} x {len(columns)} names for {list(matrix.shape)} values")
    darkness = np.asarray(shares if shares is not None else matrix / (matrix.max(initial=0) or 1))
    longest = max((len(name) for name in rows), default=0)
    # 20 pixels for the turned title, 5 before the cells, and room for letters wider than most.
    left = 25 + min(115.0, 1.1 * _LETTER * longest + 6) if rows else 20.0
    room = _WIDTH - left - 8
    cell = min(room / max(matrix.shape[1], 1), 44.0)
    deep = min(80.0, 8 + _LETTER * max((len(name) for name in columns), default=0))
    flat = all(_LETTER * len(name) < cell - 2 for name in columns)  # names need not be turned
    head = (16.0 if flat else deep) + 16 if columns else 18.0
    parts = [_text(left, 11, column_label, "start", soft=True)]
    for k, name in enumerate(columns):
        x = left + (k + 0.5) * cell
        if flat:
            parts.append(_text(x, head - 5, name, "middle"))
        elif cell >= 9 or k % math.ceil(9 / cell) == 0:
            turn = f' transform="rotate(-90 {x + 4:.1f} {head - 5:.1f})"'
            parts.append(_text(x + 4, head - 5, _cut(name, deep), "start", more=turn))
    for row in range(matrix.shape[0]):
        y = head + row * cell
        if rows and (cell >= 9 or row % math.ceil(9 / cell) == 0):
            parts.append(_text(left - 5, y + cell / 2 + 4, _cut(rows[row], left - 25), "end"))
        for column in range(matrix.shape[1]):
            value, dark = matrix[row, column], float(np.clip(darkness[row, column], 0, 1))
            x = left + column * cell
            names = [n for n in (rows[row] if rows else "", columns[column] if columns else "")
                     if n]  # fmt: skip
            hint = f"{' / '.join(names)}: {_short(value)}" if names else _short(value)
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(cell - 1, 0.5):.1f}" '
                f'height="{max(cell - 1, 0.5):.1f}" fill="var(--s0)" '
                f'fill-opacity="{0.06 + 0.94 * dark:.2f}"><title>{escape(hint)}</title></rect>'
            )
            text = _short(value)
            if (rows or columns) and value and _LETTER * len(text) < cell - 2:
                ink = "var(--paper)" if dark > 0.5 else "var(--ink)"
                more = f' style="fill:{ink}"'
                parts.append(_text(x + cell / 2, y + cell / 2 + 4, text, "middle", more=more))
    height = head + matrix.shape[0] * cell + 6
    if row_label:
        middle = head + matrix.shape[0] * cell / 2
        turn = f' transform="rotate(-90 12 {middle:.1f})"'
        parts.append(_text(12, middle, row_label, "middle", soft=True, more=turn))
    return _figure(_svg(title, height, parts), title, caption, [])


class _Axis(NamedTuple):
    """One direction of a plot: its range, and where it has ticks."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def place(self, value: np.ndarray | float) -> np.ndarray:
        """Return the share of the axis, 0..1, at which values lie."""
        to: Callable[[np.ndarray], np.ndarray] = np.log if self.log else np.asarray
        values = np.asarray(value, np.float64)
        if self.log:
            values = np.maximum(values, self.low * 1e-3)
        low, high = to(np.asarray(self.low)), to(np.asarray(self.high))
        return (to(values) - low) / (high - low)


class _Plot:
    """A plotting area with two axes; its methods collect what is drawn."""

    def __init__(self, x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> None:
        self._x, self._y = x_axis, y_axis
        self._labels = x_label, y_label
        self._top = _TOP + (14 if y_label else 0)
        self._parts: list[str] = []

    def _px(self, x: np.ndarray | float) -> np.ndarray:
        return _LEFT + np.clip(self._x.place(x), 0, 1) * (_WIDTH - _LEFT - _RIGHT)

    def _py(self, y: np.ndarray | float) -> np.ndarray:
        bottom = _HEIGHT - _BOTTOM
        return bottom - np.clip(self._y.place(y), 0, 1) * (bottom - self._top)

    def bar(self, low: float, high: float, height: float, k: int, text: str, shared: bool) -> None:
        x1, x2, y, base = self._px(low), self._px(high), self._py(height), _HEIGHT - _BOTTOM
        look = f'fill="var(--s{k % _COLORS})"'
        if shared:
            look += f' fill-opacity="0.35" stroke="var(--s{k % _COLORS})"'
        self._parts.append(
            f'<rect x="{x1 + 0.5:.1f}" y="{y:.1f}" width="{max(x2 - x1 - 1, 0.5):.1f}" '
            f'height="{base - y:.1f}" {look}><title>{escape(text)}</title></rect>'
        )

    def line(self, x: np.ndarray, y: np.ndarray, k: int, name: str, points: bool) -> None:
        x, y = _thinned(x, y)
        shown = np.isfinite(x) & np.isfinite(y)
        pen, commands = "M", []
        for px, py, there in zip(self._px(x), self._py(y), shown, strict=True):
            if there:
                commands.append(f"{pen}{px:.1f} {py:.1f}")
            pen = "L" if there else "M"
        dash = _DASHES[k // _COLORS % len(_DASHES)] if k >= _COLORS else ""
        self._parts.append(
            f'<path d="{" ".join(commands)}" fill="none" stroke="var(--s{k % _COLORS})" '
            f'stroke-width="2" stroke-linejoin="round" stroke-dasharray="{dash}">'
            f"<title>{escape(name)}</title></path>"
        )
        if points:
            self.points(x, y, k, opacity=1.0)

    def points(self, x: np.ndarray, y: np.ndarray, k: int, opacity: float = 0.55) -> None:
        shown = np.isfinite(x) & np.isfinite(y)
        for px, py, vx, vy in zip(
            self._px(x)[shown], self._py(y)[shown], x[shown], y[shown], strict=True
        ):
            self._parts.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" fill="var(--s{k % _COLORS})" '
                f'fill-opacity="{opacity}"><title>{_short(vx)}, {_short(vy)}</title></circle>'
            )

    def marks(self, marks: Sequence[tuple[float, str]]) -> None:
        for k, (x, what) in enumerate(marks):
            px = float(self._px(x))
            right = px > _WIDTH * 0.6
            self._parts.append(
                f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{self._top}" y2="{_HEIGHT - _BOTTOM}" '
                f'stroke="var(--error)" stroke-width="1.5" stroke-dasharray="4 3"/>'
            )
            place = self._top + 10 + 13 * k
            self._parts.append(
                _text(px + (-4 if right else 4), place, what, "end" if right else "start")
            )

    def svg(self, title: str) -> Html:
        bottom = _HEIGHT - _BOTTOM
        frame = []
        for tick in self._y.ticks:
            y = float(self._py(tick))
            frame.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
                         f'y1="{y:.1f}" y2="{y:.1f}"/>')  # fmt: skip
            frame.append(_text(_LEFT - 5, y + 4, _short(tick), "end", soft=True))
        for tick in self._x.ticks:
            x = float(self._px(tick))
            frame.append(
                f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            )
            frame.append(_text(x, bottom + 15, _short(tick), "middle", soft=True))
        frame.append(
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>'
        )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        x_label, y_label = self._labels
        frame.append(_text(middle, _HEIGHT - 5, x_label, "middle", soft=True))
        if y_label:
            frame.append(_text(4, 12, y_label, "start", soft=True))
        return _svg(title, _HEIGHT, [*frame, *self._parts])


def _axis(
    values: Sequence[float] | np.ndarray,
    log: bool = False,
    *,
    whole: bool = False,
    from_zero: bool = False,
) -> _Axis:
    """Return an axis that shows all finite values, and at most seven ticks on it."""
    finite = _floats(values)
    finite = finite[np.isfinite(finite)]
    if log:
        finite = finite[finite > 0]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if log:
        low, high = (low, high) if finite.size else (1.0, 10.0)
        if low == high:
            low, high = low / 2, high * 2
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            ticks = [s * 10.0**e for e in exponents for s in steps if low <= s * 10.0**e <= high]
            if len(ticks) <= 7:
                break
        ticks = ticks[:: math.ceil(len(ticks) / 7)] if ticks else [low, high]
        return _Axis(low, high, True, tuple(ticks))
    if low == high:
        high = low + max(abs(low), 1.0)
    if from_zero:
        low = min(low, 0.0)
    rough = (high - low) / 5
    step = 10.0 ** math.floor(math.log10(rough))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= rough * 0.999)
    if whole:
        step = max(1.0, step)
        high = max(high, low + step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return _Axis(low, high, False, tuple(k * step for k in range(first, last + 1)))


def _with_margin(axis: _Axis) -> _Axis:
    """Return a linear axis that reaches a little further, so that no point lies on its end."""
    margin = 0.04 * (axis.high - axis.low)
    return axis._replace(low=axis.low - margin, high=axis.high + margin)


def _named(
    values: Sequence[float] | np.ndarray | Mapping[str, Sequence[float] | np.ndarray],
) -> dict[str, np.ndarray]:
    """Return series by name, floats [n]; a single one has the name ""."""
    if isinstance(values, Mapping):
        return {name: _floats(of) for name, of in values.items()}
    return {"": _floats(values)}


def _floats(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(-1)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `_MAX_POINTS` points, the lowest and highest of each stretch among them."""
    if len(x) <= _MAX_POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for stretch in np.array_split(np.arange(len(x)), _MAX_POINTS // 2):
        finite = stretch[np.isfinite(y[stretch])]
        chosen = finite if finite.size else stretch[:1]
        kept |= {int(chosen[np.argmin(y[chosen])]), int(chosen[np.argmax(y[chosen])])}
    index = sorted(kept)
    return x[index], y[index]


def _short(value: float) -> str:
    """Return a number in at most about six characters."""
    value = float(value)
    if value == int(value) and abs(value) < 1e4:
        return str(int(value))
    if abs(value) >= 1e4:
        for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if abs(value) >= size:
                return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _cut(text: str, room: float) -> str:
    """Return text that fits into so many units."""
    letters = max(3, int(room / _LETTER))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _text(x: float, y: float, text: str, anchor: str, *, soft: bool = False, more: str = "") -> str:
    kind = ' class="soft"' if soft else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {place}{kind}{more}>{escape(text)}</text>" if text else ""


def _svg(title: str, height: float, parts: Sequence[str]) -> Html:
    return Html(
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(parts) + "</svg>"
    )  # fmt: skip


def _figure(svg: Html, title: str, caption: str, names: Sequence[str]) -> Html:
    keys = color_keys((name, f"var(--s{k % _COLORS})") for k, name in enumerate(names))
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(
        f'<figure class="chart"><p class="chart-title">{escape(title)}</p>{svg}'
        f"{keys if names else ''}{below}</figure>"
    )
