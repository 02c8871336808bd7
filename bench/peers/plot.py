"""The report as a picture: bars for drains, storing and detectors, a logarithmic scale for latencies. Plain SVG, light background."""

from html import escape
from math import log10

import figures

WIDTH, LEFT, RIGHT, ROW, GAP = 960, 230, 90, 20, 34
OURS, OTHERS, LIMITS = "#1668b8", "#d97b29", "#9aa4ae"
# How a contender's bar is coloured; the rest are peers.
LIMIT_NAMES = ("sendfile, dropped", "local splice", "local read+write", "local read+write+rename", "fio, O_DIRECT", "memcpy", "hash")


def plot(report):
    charts = []
    for name, results in report.get("drain", {}).get("results", {}).items():
        count = figures.files_of(name, results)
        bars = [(who, figures.speed(runs), figures.spread(runs), f"{figures.speed(runs):.2f}") for who, runs in results.items()]
        charts.append((f"drain of {count:,} × {name}, GB/s", "from the full source to the last file visible; the line is slowest to fastest", bars_svg, bars))
    for name, results in report.get("live", {}).get("results", {}).items():
        points = [(who, figures.percentile_ms(runs, 50), figures.percentile_ms(runs, 99)) for who, runs in results.items()]
        title = f"live, {report['live']['rates'][name]} images/s × {name}, ms (logarithmic)"
        charts.append((title, "from close to visible: left end p50, right end p99; ppu-uringd writes all to two storages meanwhile", spans_svg, points))
    for part, what in (("store", "on to one storage"), ("storages", "on to three storages at once")):
        for name, results in report.get(part, {}).get("results", {}).items():
            bars = [(who, figures.speed(runs), figures.spread(runs), f"{figures.speed(runs):.2f}") for who, runs in results.items()]
            charts.append((f"files of {name} {what}, durable, GB/s", f"fresh {report[part]['file_system']} on a loop device", bars_svg, bars))
    if beside := report.get("beside"):
        points = [(trouble, figures.percentile_ms(runs, 50), figures.percentile_ms(runs, 99)) for trouble, runs in beside["results"].items()]
        title = f"landing beside …, {beside['hz']} images/s × {beside['size'] / 1e3:.0f} kB, ms (logarithmic)"
        charts.append((title, "from close to visible: left end p50, right end p99", spans_svg, points))
    return document(report, charts)


def document(report, charts):
    first = next(iter(report.values()))
    machine = first["machine"]
    loads = sorted(part["load_before"] for part in report.values())
    subtitle = (
        f"{machine['cpu']}, {machine['cores']} cores for both sides, {machine['memory_gb']} GB, Linux {machine['kernel']}, loopback; "
        f"medians of {first['repetitions']} interleaved repetitions; load average before each part {loads[0]} to {loads[-1]}"
    )
    lines, y = [], 92
    for title, note, draw, values in charts:
        lines.append(text(20, y, title, 15, weight="bold"))
        lines.append(text(20, y + 17, note, 11, fill="#5c6670"))
        y += 30
        lines += draw(y, values)
        y += len(values) * ROW + GAP
    legend, x = [], 20
    for colour, what in ((OURS, "ppu-uringd"), (OTHERS, "peers"), (LIMITS, "limits: what the machine does without a network, a check or a file kept")):
        legend += [f'<rect x="{x}" y="56" width="12" height="12" fill="{colour}"/>', text(x + 18, 67, what, 12)]
        x += 40 + 7 * len(what)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" font-family="system-ui, sans-serif">',
        f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>',
        text(20, 28, "ppu-uringd beside others, and the limits of the machine", 18, weight="bold"),
        text(20, 46, subtitle, 11, fill="#5c6670"),
        *legend, *lines, "</svg>", "",
    ])  # fmt: skip


def bars_svg(y, bars):
    most = max(high for _, _, (_, high), _ in bars)
    scale = lambda value: LEFT + value / most * (WIDTH - LEFT - RIGHT)
    for row, (who, value, (low, high), shown) in enumerate(bars):
        top, middle = y + row * ROW, y + row * ROW + ROW / 2 - 1
        yield text(LEFT - 8, middle + 4, who, 12, anchor="end")
        yield f'<rect x="{LEFT}" y="{top + 1}" width="{scale(value) - LEFT:.1f}" height="{ROW - 5}" fill="{colour(who)}"/>'
        yield f'<line x1="{scale(low):.1f}" x2="{scale(high):.1f}" y1="{middle}" y2="{middle}" stroke="#1d2329" stroke-width="1.2"/>'
        yield text(scale(max(value, high)) + 6, middle + 4, shown, 12)


def spans_svg(y, spans):
    """Decades from 0.1 ms on, as many as it takes."""
    decades = 1
    while max(p99 for _, _, p99 in spans) > 0.1 * 10**decades:
        decades += 1
    scale = lambda value: LEFT + max(0.0, log10(value / 0.1)) / decades * (WIDTH - LEFT - RIGHT - 60)
    for decade in range(decades + 1):
        x, value = scale(0.1 * 10**decade), 0.1 * 10**decade
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 2}" y2="{y + len(spans) * ROW}" stroke="#dfe4e8"/>'
        yield text(x, y + len(spans) * ROW + 10, f"{value:g}", 10, anchor="middle", fill="#5c6670")
    for row, (who, p50, p99) in enumerate(spans):
        middle = y + row * ROW + ROW / 2 - 1
        yield text(LEFT - 8, middle + 4, who, 12, anchor="end")
        yield f'<line x1="{scale(p50):.1f}" x2="{scale(p99):.1f}" y1="{middle}" y2="{middle}" stroke="{colour(who)}" stroke-width="5"/>'
        yield f'<circle cx="{scale(p50):.1f}" cy="{middle}" r="5" fill="{colour(who)}"/>'
        yield text(scale(p99) + 8, middle + 4, f"{p50:.2f} … {p99:.2f}", 12)


def colour(who):
    if who in LIMIT_NAMES:
        return LIMITS
    return OTHERS if who in ("rsync", "rsync x 2", "lsyncd", "HiDRA", "read+write+fsync") else OURS


def text(x, y, words, size, anchor="start", weight="normal", fill="#1d2329"):
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
