"""The report as text, ready for a README. Medians; ratios are of medians."""

from statistics import median

import figures
from figures import FIO, RSYNC, SENDFILE, cpu_per_gb, first_to_last, percentile_ms, speed, spread


def table(report):
    parts = [line for part, of in TABLES.items() if part in report for line in [head(part, report[part]), *of(report[part])]]
    rows = [("goal", "wanted", "measured", "met")]
    rows += [(what, goal, value, "yes" if met else "no") for what, goal, value, met in figures.goals(report)]
    return "\n\n".join([*parts, "## goals", aligned(rows)])


def head(part, report):
    machine = report["machine"]
    return (
        f"## {part}\n\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}; "
        f"load average before: {report['load_before']}; {report['repetitions']} interleaved repetitions"
    )


def drain_tables(report):
    for name, results in report["results"].items():
        rows = [("", "GB/s", "from - to", "x rsync", "x sendfile", "first to last", "x rsync", "CPU s/GB sender", "receiver")]
        for who, runs in results.items():
            sender = cpu_per_gb(runs, "sender_cpu")
            rows.append((
                who,
                f"{speed(runs):.2f}",
                "{:.2f} - {:.2f}".format(*spread(runs)),
                f"{speed(runs) / speed(results[RSYNC]):.2f}",
                f"{speed(runs) / speed(results[SENDFILE]):.2f}",
                f"{first_to_last(runs) * 1e3:.0f} ms",
                f"{first_to_last(results[RSYNC]) / first_to_last(runs):.2f}",
                f"{sender:.2f}" if sender else "",
                f"{cpu_per_gb(runs, 'receiver_cpu'):.2f}",
            ))  # fmt: skip
        yield f"drain of {figures.files_of(name, results)} x {name}\n{aligned(rows)}"


def live_tables(report):
    for name, results in report["results"].items():
        rows = [("", "p50", "p99", "max", "CPU s/GB sender", "receiver")]
        for who, runs in results.items():
            times = [f"{percentile_ms(runs, percent):.2f} ms" for percent in (50, 99, 100)]
            cpu = [f"{median(run[side] for run in runs):.2f}" for side in ("sender_cpu_per_gb", "receiver_cpu_per_gb")]
            rows.append((who, *times, *cpu))
        files = sum(len(run["micros"]) for run in next(iter(results.values())))
        yield f"live, {report['rates'][name]} files/s x {name}, close to visible ({files} files each; ppu-uringd writes all to two storages)\n{aligned(rows)}"


def store_tables(report):
    for name, results in report["results"].items():
        plain = results.get("read+write+fsync")
        rows = [("", "GB/s", "from - to", "x fio", *(["x read+write+fsync"] if plain else []), "CPU s/GB")]
        for who, runs in results.items():
            ratios = [f"{speed(runs) / speed(other):.2f}" for other in (results[FIO], plain) if other]
            rows.append((who, f"{speed(runs):.2f}", "{:.2f} - {:.2f}".format(*spread(runs)), *ratios, f"{cpu_per_gb(runs, 'cpu'):.2f}"))
        yield f"store files of {name} on a fresh {report['file_system']} (loop device)\n{aligned(rows)}"


def beside_tables(report):
    rows = [("close to visible, beside", "files", "p50", "p99", "x", "left meanwhile")]
    nothing = report["results"]["nothing"]
    for trouble, runs in report["results"].items():
        p50, p99 = (percentile_ms(runs, percent) for percent in (50, 99))
        files = sum(len(run["micros"]) for run in runs)
        gone = f"{median(run['left'] for run in runs):,.0f} files" if "left" in runs[0] else ""
        rows.append((trouble, str(files), f"{p50:.2f} ms", f"{p99:.2f} ms", f"{p99 / percentile_ms(nothing, 99):.2f}", gone))
    yield f"{report['hz']} files/s x {report['size'] / 1e3:.0f} kB, two storages\n{aligned(rows)}"


def keep_tables(report):
    rows = [("", "files/s"), *((what, f"{median(report[what]):,.0f}") for what in ("decided", "evicted", "purged"))]
    yield f"{report['files']:,} files, nothing else\n{aligned(rows)}"


def scale_tables(report):
    rows = [("files at once", "µs each", "CPU µs each, sender", "receiver")]
    row = lambda count, run: (
        count, f"{run['seconds'] / run['files'] * 1e6:.0f}", f"{run['sender_cpu'] / run['files'] * 1e6:.0f}", f"{run['receiver_cpu'] / run['files'] * 1e6:.0f}"
    )  # fmt: skip
    few = report["few"][len(report["few"]) // 4 :]
    rows.append(row("1,000", {key: median(run[key] for run in few) for key in few[0]}))
    rows.append(row(f"{report['many']['files']:,}", report["many"]))
    peaks = [f"{peak / 1e6:.0f} MB" for peak in report["peak_bytes"]]
    yield f"files of {report['size']} bytes, all pending\n{aligned(rows)}"
    yield f"most memory held with {report['pending']:,} pending: detector {peaks[0]}, PPU {peaks[1]}"


def detectors_tables(report):
    rows = [("", "GB/s", "from - to", "slowest / fastest", "CPU s/GB, both sides")]
    for who, runs in report["results"].items():
        fairness = f"{median(run['fairness'] for run in runs):.2f}"
        rows.append((who, f"{speed(runs):.2f}", "{:.2f} - {:.2f}".format(*spread(runs)), fairness, f"{cpu_per_gb(runs, 'cpu'):.2f}"))
    yield f"{report['files']} x {report['size'] / 1e6:.1f} MB in all\n{aligned(rows)}"


def limits_tables(report):
    yield aligned([("", "GB/s"), *((what, f"{median(rates):.1f}") for what, rates in report["results"].items())])


TABLES = {
    "drain": drain_tables, "live": live_tables, "store": store_tables, "storages": store_tables, "beside": beside_tables, "keep": keep_tables,
    "scale": scale_tables, "detectors": detectors_tables, "limits": limits_tables,
}  # fmt: skip


def aligned(rows):
    """A Markdown table that reads as text as well."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append(f"| {' | '.join(cells)} |")
        if number == 0:
            lines.append("|" + "|".join("-" * (width + 1) + ("-" if column == 0 else ":") for column, width in enumerate(widths)) + "|")
    return "\n".join(lines)
