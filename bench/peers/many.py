"""Many files, and many detectors."""

import os
import subprocess
import time

from arena import FileSet, names_in, remove, wait_until_visible
from contenders import IDLE_SECONDS, PATIENCE_SECONDS

MANY, FEW, ROUNDS = 1_000_000, 1_000, 20
FILE_BYTES, PER_DIRECTORY = 1000, 1000
# Memory that a small file takes, with all that the kernel keeps of it.
FOOTPRINT = 5500
MANY_PATIENCE_SECONDS = 300

DETECTORS, FILES_EACH = 8, 40


def measure_scale(bench):
    """What a file costs when there are a thousand, and when there are a million that all stay pending: the storage is not mounted."""
    uringd = bench.uringd("uring")
    many = MANY // 10 if bench.options.quick else MANY
    bench.progress("scale: touching all free memory")
    bench.arena.warm_all()
    uringd.start()
    try:
        few = [drain(bench, uringd, f"few{number}", FEW) for number in range(ROUNDS)]
        bench.progress(f"scale: {many} files")
        all_of_them = drain(bench, uringd, "many", many)
        pending = uringd.pending("internal")
        peaks = [peak_bytes(uringd.daemons[role].pid) for role in ("detector0", "ppu")]
    finally:
        uringd.stop()
        for entry in os.scandir(bench.arena.watched):
            remove(entry.path)
        bench.arena.clear_target()
    if pending < many:
        raise RuntimeError(f"only {pending} of {many} files are pending")
    return {"few": few, "many": all_of_them, "pending": pending, "peak_bytes": peaks, "size": FILE_BYTES}


def drain(bench, uringd, name, count):
    arena = bench.arena
    prepared, watched, landed = (os.path.join(root, name) for root in (arena.prepared, arena.watched, arena.target))
    subprocess.run([bench.limits, "make", prepared, str(count), str(FILE_BYTES), str(PER_DIRECTORY)], check=True)
    time.sleep(IDLE_SECONDS)
    arena.warm(count * FOOTPRINT)
    before = uringd.cpu()
    begun = time.monotonic()
    os.rename(prepared, watched)
    directories = [os.path.join(landed, f"{number:04d}") for number in range(count // PER_DIRECTORY)]
    missing = list(reversed(directories))
    while missing:
        if time.monotonic() > begun + MANY_PATIENCE_SECONDS:
            raise RuntimeError(f"{missing[-1]} is not complete")
        while missing and names_in(missing[-1]) == PER_DIRECTORY:
            missing.pop()
            arena.cool(len(missing) * PER_DIRECTORY * FOOTPRINT)
        time.sleep(0.0005)
    seconds = time.monotonic() - begun
    time.sleep(IDLE_SECONDS)
    after = uringd.cpu()
    return {"files": count, "seconds": seconds, "sender_cpu": after[0] - before[0], "receiver_cpu": after[1] - before[1]}


def peak_bytes(pid):
    """The most memory that it has ever held, ramdisks not counted."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmHWM"].split()[0]) * 1024


def measure_detectors(bench):
    """The same files from one detector, and from eight at once."""
    sets = [FileSet(bench.arena, f"of{number}", FILES_EACH, 2_400_000) for number in range(DETECTORS)]
    one, eight = (bench.uringd("uring", detectors=detectors) for detectors in (1, DETECTORS))
    runs = {"one detector": lambda: drain_at_once(bench, one, sets), f"{DETECTORS} detectors": lambda: drain_at_once(bench, eight, sets)}
    return {"files": len(sets) * FILES_EACH, "size": 2_400_000, "results": bench.interleaved("detectors", runs)}


def drain_at_once(bench, uringd, sets):
    uringd.start()
    of = lambda number: number if uringd.detectors > 1 else 0
    size = sum(files.bytes for files in sets)
    try:
        bench.arena.warm(size)
        before = uringd.cpu()
        begun = time.monotonic()
        for number, files in enumerate(sets):
            files.move_in(uringd.watched(of(number)))
        expected = [(files, os.path.join(uringd.target(of(number)), files.name)) for number, files in enumerate(sets)]
        times = wait_until_visible(expected, PATIENCE_SECONDS)
        time.sleep(IDLE_SECONDS)
        after = uringd.cpu()
        for files, landed in expected:
            files.verify(files.watched, landed)
    finally:
        uringd.stop()
        for files in sets:
            files.move_out()
        for number in range(uringd.detectors if uringd.detectors > 1 else 0):
            remove(uringd.watched(number))
    took = [last - begun for _, last in times]
    return {"seconds": max(took), "bytes": size, "fairness": min(took) / max(took), "cpu": sum(after) - sum(before)}
