"""Live: from the close of an image on the detector to its name on the PPU, one image after the other at a detector's rate."""

import json
import os
import subprocess
import time

from contenders import IDLE_SECONDS, Lsyncd, Relay
from hidra import Hidra

# Images a second.
RATES = {"100 kB": 500, "2.4 MB": 100, "6.2 MB": 50, "64 MB": 5}
# Not counted; and how long images stay.
WARM_SECONDS = 2
# Of the memory that images take; the rest is for what else happens meanwhile.
WARM_MARGIN = 1.5


def measure(bench, names):
    """Our two engines while two storages write all of it; beside them a plain local loop, lsyncd, and HiDRA where there is one."""
    results = {name: {} for name in names}
    seconds = bench.options.live_seconds
    # Nothing of a run is on the disks when the next one begins.
    with bench.disks(2, max(RATES[name] * bench.sets[name].size for name in names) * (seconds + 2)) as disks:
        everyone = [Relay(bench.arena, bench.limits), Lsyncd(bench.arena)]
        if bench.options.hidra:
            everyone.append(Hidra(bench.arena, bench.options.hidra))
        if not bench.options.without_uringd:
            everyone = [bench.uringd("uring", disks=disks), bench.uringd("syscall", disks=disks)] + everyone
        for name in names:
            shape = (RATES[name], bench.sets[name].size)
            runs = {one.name: lambda one=one: run(bench, one, *shape, seconds) for one in everyone}
            results[name] = bench.interleaved(f"live {RATES[name]}/s x {name}", runs)
    return {"rates": RATES, "seconds": seconds, "results": results}


def run(bench, one, hz, size, seconds):
    disks = getattr(one, "disks", ())
    for disk in disks:
        disk.fresh()
        disk.mount()
    one.start()
    try:
        before = one.cpu()
        micros = stream(bench, one, hz, size, seconds, WARM_SECONDS)
        time.sleep(IDLE_SECONDS)
        after = one.cpu()
    finally:
        one.stop()
        for disk in disks:
            disk.unmount()
    gigabytes = hz * (WARM_SECONDS + seconds) * size / 1e9
    return {"micros": micros, "sender_cpu_per_gb": (after[0] - before[0]) / gigabytes, "receiver_cpu_per_gb": (after[1] - before[1]) / gigabytes}


def stream(bench, one, hz, size, seconds, warm_seconds):
    """How long each image took, in microseconds, but for those of the first seconds. Images are removed from both sides so long after they
    were written: so much memory is touched before, and new ones get what old ones had."""
    source, target = (os.path.join(root, "live") for root in (bench.arena.watched, bench.arena.target))
    count, warm = hz * (seconds + warm_seconds), hz * warm_seconds
    bench.arena.warm(int(2 * warm * size * WARM_MARGIN))
    bench.arena.cool()
    command = [bench.limits, "live", source, target, str(count), str(size), str(hz), str(warm)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if result["missing"] or len(result["micros"]) != count:
        raise RuntimeError(f"{one.name}: {result['missing']} of {count} live files never appeared")
    return result["micros"][warm:]
