"""The report as text, ready for a README. Medians; ratios are of medians."""

from statistics import median


def table(report):
    machine = report["machine"]
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}; "
        f"load average before: {machine['load_before']}; medians of {report['repetitions']} interleaved repetitions"
    ]
    if "drain" in report:
        parts += [drain_table(name, results) for name, results in report["drain"].items()]
        parts.append(f"memcpy: {median(report['memcpy']):.1f} GB/s")
    if "live" in report:
        parts.append(live_table(report["live"]))
    if "store" in report:
        parts.append(store_table(report["store"]))
    if "storages" in report:
        parts.append(storages_table(report["storages"]))
    return "\n\n".join(parts)


def storages_table(report):
    speed = {who: median(gigabytes_per_second(run) for run in runs) for who, runs in report["results"].items()}
    rows = [("", "GB/s", "x fio")]
    rows += [(who, f"{value:.2f}", f"{value / speed['fio, O_DIRECT']:.2f}") for who, value in speed.items()]
    head = f"three storages at once, {report['files']} x {report['size'] / 1e6:.1f} MB to each ({report['file_system']}, loop devices)"
    landing = [("close to visible, beside", "p50", "p99", "x")]
    of = lambda trouble, key: median(run[trouble][key] for run in report["landing"])
    for trouble, what in (("none", "three storages"), ("hung", "one that hangs"), ("slow", "one that is 100 times slower")):
        p50, p99 = of(trouble, "p50_us"), of(trouble, "p99_us")
        landing.append((what, f"{p50 / 1e3:.2f} ms", f"{p99 / 1e3:.2f} ms", f"{p99 / of('none', 'p99_us'):.2f}"))
    return f"{head}\n{aligned(rows)}\n\n{aligned(landing)}"


def drain_table(name, results):
    speed = {who: median(gigabytes_per_second(run) for run in runs) for who, runs in results.items()}
    first_to_last = {who: median(run["first_to_last"] for run in runs) for who, runs in results.items()}
    rows = [("", "GB/s", "x rsync", "x sendfile", "first to last", "x rsync", "CPU s/GB sender", "receiver")]
    for who, runs in results.items():
        sender, receiver = (sum(run[side] for run in runs) for side in ("sender_cpu", "receiver_cpu"))
        gigabytes = sum(run["bytes"] for run in runs) / 1e9
        rows.append((
            who,
            f"{speed[who]:.2f}",
            f"{speed[who] / speed['rsync']:.2f}",
            f"{speed[who] / speed['sendfile, dropped']:.2f}",
            f"{first_to_last[who] * 1e3:.0f} ms",
            f"{first_to_last['rsync'] / first_to_last[who]:.2f}",
            f"{sender / gigabytes:.2f}" if sender else "",
            f"{receiver / gigabytes:.2f}",
        ))  # fmt: skip
    count = round(next(iter(results.values()))[0]["bytes"] / size_of(name))
    return f"drain of {count} x {name}\n{aligned(rows)}"


def live_table(results):
    rows = [("", "p50", "p99", "max", "CPU s/GB sender", "receiver")]
    for who, runs in results.items():
        of = lambda key: median(run[key] for run in runs)
        times = [f"{of(key) / 1e3:.2f} ms" for key in ("p50_us", "p99_us", "max_us")]
        rows.append((who, *times, f"{of('sender_cpu_per_gb'):.2f}", f"{of('receiver_cpu_per_gb'):.2f}"))
    runs = next(iter(results.values()))
    return f"live, 100 files/s x 2.4 MB, close to visible ({runs[0]['files']} files a run, medians of {len(runs)} runs)\n{aligned(rows)}"


def store_table(report):
    results = report["results"]
    speed = {who: median(gigabytes_per_second(run) for run in runs) for who, runs in results.items()}
    rows = [("", "GB/s", "x fio", "x read+write+fsync", "CPU s/GB")]
    for who, runs in results.items():
        cpu = sum(run["cpu"] for run in runs) / sum(run["bytes"] for run in runs) * 1e9
        ratios = [f"{speed[who] / speed[other]:.2f}" for other in ("fio, O_DIRECT", "read+write+fsync")]
        rows.append((who, f"{speed[who]:.2f}", *ratios, f"{cpu:.2f}"))
    head = f"store {report['files']} x {report['size'] / 1e6:.1f} MB on a fresh {report['file_system']} (loop device)"
    return f"{head}\n{aligned(rows)}"


def gigabytes_per_second(run):
    return run["bytes"] / run["seconds"] / 1e9


def size_of(name):
    number, unit = name.split()
    return float(number) * {"kB": 1e3, "MB": 1e6}[unit]


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
