"""Landing beside trouble: what a storage that hangs, one that is a hundred times too slow, an eviction and a purge do to the way from close to
visible. All in one session of the daemons, in turns with runs beside which nothing happens."""

import os
import subprocess
import time

from arena import FileSet, wait_until, wait_until_visible, write
from contenders import IDLE_SECONDS, PATIENCE_SECONDS
from live import stream

HZ, SIZE, SECONDS = 500, 100_000, 3
# What leaves.
FILES, FILE_BYTES = 50_000, 4096
# Storing them all takes.
STORED_SECONDS = 300
# Of the slow storage: a hundredth of what comes.
SLOW_BYTES_PER_SECOND = HZ * SIZE // 100
# A normal ramdisk is below; one that shrinks until FILES fill half of it is above, and nearly everything is to leave.
MARKS = "fillstate_limit = 0.3\nfillstate_low = 0.01\nalmost_overflow = 0.99"
FILLED = 0.5
BLKIO = "/sys/fs/cgroup/blkio"


def measure(bench):
    sets = [FileSet(bench.arena, f"small{number}", FILES, FILE_BYTES) for number in range(2)]
    results = {}
    with bench.disks(2, 2_000_000_000) as disks:
        for repetition in range(bench.repetitions):
            session(bench, bench.uringd("uring", disks=disks, marks=MARKS), sets, results, repetition)
    for files in sets:
        files.remove()
    return {"hz": HZ, "size": SIZE, "seconds": SECONDS, "files": FILES, "results": results}


def session(bench, uringd, sets, results, repetition):
    for disk in uringd.disks:
        disk.fresh()
        disk.mount()
    uringd.start()

    def landing(trouble, left=lambda: None):
        bench.progress(f"landing beside {trouble} {repetition + 1}/{bench.repetitions}")
        before = left()
        micros = stream(bench, uringd, HZ, SIZE, SECONDS, 1)
        time.sleep(IDLE_SECONDS)
        run = {"micros": micros}
        if before is not None:
            run["left"] = left() - before
        results.setdefault(trouble, []).append(run)
        return run

    try:
        landing("nothing")
        for trouble, begin in (("a hung storage", freeze), ("a slow storage", throttle)):
            if end := begin(uringd):
                try:
                    landing(trouble)
                finally:
                    end()
                all_stored(uringd)
                landing("nothing")
        # Before another shift begins: all files were written in this one.
        land(uringd, sets[1])
        with_small_ramdisk(bench, lambda: landing("eviction", lambda: left(uringd, "evicted")))
        landing("nothing")
        land(uringd, sets[0])
        before = left(uringd, "purged")
        uringd.command("shift", "start")
        landing("a purge", lambda: left(uringd, "purged"))
        wait_until(lambda: left(uringd, "purged") >= before + FILES, PATIENCE_SECONDS, "the purge's end")
        landing("nothing")
    finally:
        uringd.stop()
        for files in sets:
            files.move_out()
        for disk in uringd.disks:
            disk.unmount()
        bench.arena.clear_target()


def land(uringd, files):
    """And store."""
    files.move_in()
    wait_until_visible([(files, os.path.join(uringd.target(), files.name))], PATIENCE_SECONDS)
    all_stored(uringd)


def all_stored(uringd):
    wait_until(lambda: not any(one["pending"] for one in uringd.status()["storages"]), STORED_SECONDS, "everything is stored", every=0.2)
    time.sleep(0.5)


def left(uringd, how):
    return uringd.status()["ramdisk"][how]["files"]


def with_small_ramdisk(bench, run):
    found = os.statvfs(bench.arena.target)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    resize = lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", bench.arena.target], check=True)
    resize(int(used / FILLED))
    try:
        run()
    finally:
        resize(found.f_blocks * found.f_frsize)


def freeze(uringd):
    at = uringd.disks[-1].mountpoint
    subprocess.run(["fsfreeze", "-f", at], check=True)
    return lambda: subprocess.run(["fsfreeze", "-u", at], check=True)


def throttle(uringd):
    """By the blkio controller (version 1). `None` where there is none."""
    if not os.path.exists(f"{BLKIO}/cgroup.procs"):
        return None
    group, pid = f"{BLKIO}/ppu-bench-{os.getpid()}", uringd.daemons["ppu"].pid
    os.makedirs(group, exist_ok=True)
    device = os.stat(uringd.disks[-1].device).st_rdev
    write(f"{group}/blkio.throttle.write_bps_device", f"{os.major(device)}:{os.minor(device)} {SLOW_BYTES_PER_SECOND}")
    write(f"{group}/cgroup.procs", str(pid))

    def lift():
        write(f"{BLKIO}/cgroup.procs", str(pid))
        os.rmdir(group)

    return lift
