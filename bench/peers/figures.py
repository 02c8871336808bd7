"""What a report says, as numbers: medians and ratios of medians, and the goals that they are held against."""

from statistics import median

URING, SYSCALL, OFF, RSYNC, SENDFILE = "ppu-uringd uring", "ppu-uringd syscall", ", verify off", "rsync", "sendfile, dropped"
PEERS, RELAY, FIO = ("rsync x 2", "lsyncd"), "local read+write+rename", "fio, O_DIRECT"
# Only where it was there.
HIDRA = "HiDRA"


def speed(runs):
    """GB/s."""
    return median(run["bytes"] / run["seconds"] for run in runs) / 1e9


def first_to_last(runs):
    return median(run["first_to_last"] for run in runs)


def spread(runs):
    """Of the speeds, slowest and fastest."""
    speeds = [run["bytes"] / run["seconds"] / 1e9 for run in runs]
    return min(speeds), max(speeds)


def cpu_per_gb(runs, side):
    return sum(run[side] for run in runs) / sum(run["bytes"] for run in runs) * 1e9


def percentile_ms(runs, percent):
    """Of all runs together."""
    micros = sorted(micro for run in runs for micro in run["micros"])
    return micros[min(len(micros) - 1, int(len(micros) * percent / 100))] / 1e3


def files_of(name, results):
    """Of a drain of files like "2.4 MB"."""
    size, unit = name.split()
    return round(next(iter(results.values()))[0]["bytes"] / float(size) / {"kB": 1e3, "MB": 1e6}[unit])


def cost_ratio(scale):
    """What a file of many costs against one of few, in processor time and in time."""
    cpu = lambda run: (run["sender_cpu"] + run["receiver_cpu"]) / run["files"]
    took = lambda run: run["seconds"] / run["files"]
    # The first of the few warm up.
    few = scale["few"][len(scale["few"]) // 4 :]
    return cpu(scale["many"]) / median(map(cpu, few)), took(scale["many"]) / median(map(took, few))


def goals(report):
    """(what, the goal, what was measured, met) for each goal that the report has figures for."""
    rows = []

    def least(what, goal, value, unit=""):
        rows.append((what, f"≥ {goal:g}{unit}", f"{number(value)}{unit}", value >= goal))

    def most(what, goal, value, unit=""):
        rows.append((what, f"≤ {goal:g}{unit}", f"{number(value)}{unit}", value <= goal))

    drain = report.get("drain", {}).get("results", {})
    for name, results in drain.items():
        if URING not in results:
            continue
        for goal in (goal for size, goal in (("100 kB", 8), ("2.4 MB", 5), ("6.2 MB", 5)) if size == name):
            least(f"drain {name}, first to last, × one rsync", goal, first_to_last(results[RSYNC]) / first_to_last(results[URING]))
        peer = min(PEERS, key=lambda peer: first_to_last(results[peer]))
        least(f"drain {name}, first to last, × {peer}", 2.5, first_to_last(results[peer]) / first_to_last(results[URING]))
        if name != "100 kB":
            least(f"drain {name}, × sendfile-and-drop", 0.6, speed(results[URING]) / speed(results[SENDFILE]))
            least(f"drain {name}, × sendfile-and-drop, verify off", 0.85, speed(results[URING + OFF]) / speed(results[SENDFILE]))
        goal = 0.95 if name == "100 kB" else 1.0
        least(f"drain {name}, io_uring × system calls", goal, speed(results[URING]) / speed(results[SYSCALL]))
        if name == "6.2 MB":
            most("CPU at 6.2 MB, sender", 0.10, cpu_per_gb(results[URING], "sender_cpu"), " s/GB")
            most("CPU at 6.2 MB, receiver", 0.20, cpu_per_gb(results[URING], "receiver_cpu"), " s/GB")
    live = report.get("live", {})
    for name, results in live.get("results", {}).items():
        if URING not in results:
            continue
        ms = lambda percent: percentile_ms(results[URING], percent)
        what = f"live {live['rates'][name]}/s × {name}, two storages writing,"
        if name == "100 kB":
            most(f"{what} p50", 0.4, ms(50), " ms")
        else:
            most(f"{what} p50 × local loop", 1.3, ms(50) / percentile_ms(results[RELAY], 50))
        for goal in (goal for size, goal in (("100 kB", 1), ("2.4 MB", 3), ("6.2 MB", 6)) if size == name):
            most(f"{what} p99", goal, ms(99), " ms")
            if HIDRA in results:
                least(f"{what} p99, HiDRA's × ours", 10, percentile_ms(results[HIDRA], 99) / ms(99))
    for name, results in report.get("store", {}).get("results", {}).items():
        if URING not in results:
            continue
        if name == "100 kB":
            least("store 100 kB, × read+write+fsync", 3, speed(results[URING]) / speed(results["read+write+fsync"]))
        else:
            least(f"store {name}, × fio", 1.0, speed(results[URING]) / speed(results[FIO]))
            most(f"CPU of storing {name}", 0.12, cpu_per_gb(results[URING], "cpu"), " s/GB")
    for name, results in report.get("storages", {}).get("results", {}).items():
        least(f"three storages at once, {name}, × fio", 0.9, speed(results[URING]) / speed(results[FIO]))
    beside = report.get("beside", {}).get("results", {})
    for trouble in beside:
        if trouble != "nothing":
            most(f"landing's p99 beside {trouble}, × beside nothing", 1.25, percentile_ms(beside[trouble], 99) / percentile_ms(beside["nothing"], 99))
    if keep := report.get("keep"):
        least("leaving files decided", 20_000, median(keep["decided"]), "/s")
        least("evicted to links", 5_000, median(keep["evicted"]), "/s")
        least("purged", 5_000, median(keep["purged"]), "/s")
    if scale := report.get("scale"):
        cpu, took = cost_ratio(scale)
        files = f"{scale['many']['files']:,}"
        most(f"CPU of a file, {files} × 1,000", 1.1, cpu)
        most(f"time of a file, {files} × 1,000", 1.1, took)
        for who, peak in zip(("detector's", "PPU's"), scale["peak_bytes"]):
            most(f"{who} memory with {files} pending", 300, peak / 1e6, " MB")
    if detectors := report.get("detectors"):
        one, eight = detectors["results"].values()
        least("eight detectors, total × one", 0.95, speed(eight) / speed(one))
        least("eight detectors, slowest × fastest", 0.8, median(run["fairness"] for run in eight))
    return rows


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
