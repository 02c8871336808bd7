"""Three storages at once: how fast together, beside fio on the same mounts at once; and what trouble on one of them does to landing."""

import json
import os
import subprocess
import time

from arena import wait_until
from contenders import IDLE_SECONDS, PATIENCE_SECONDS, PPU, Uringd, list_dir
from storage import Disk, Store, fio_command, fio_result

KINDS = ["internal", "external", "optional"]
LIVE_HZ, LIVE_SIZE, LIVE_SECONDS = 50, 2_400_000, 8
# Of the slow storage: a hundredth of what comes.
SLOW_BYTES_PER_SECOND = LIVE_HZ * LIVE_SIZE // 100


class Several(Uringd):
    """Both daemons, and a storage on each of `disks`."""

    def __init__(self, arena, binary, engine, disks):
        super().__init__(arena, binary, engine)
        self.disks = disks

    def _write(self, name, text):
        if name == "ppu.toml":
            text = PPU[: PPU.index("[[storage]]")]
            for kind, disk in zip(KINDS, self.disks):
                at = disk.mountpoint
                text += f'[[storage]]\nid = "{kind}"\nkind = "{kind}"\ntarget = "{at}/data"\nmountpoint = "{at}"\n'
        super()._write(name, text)

    def restart_ppu(self):
        self.daemons["ppu"].terminate()
        self.daemons["ppu"].wait(20)
        log = open(os.path.join(self.here, "ppu.log"), "ab")
        command = [self.binary, "ppu", "--config", os.path.join(self.here, "ppu.toml")]
        self.daemons["ppu"] = subprocess.Popen(command, stdout=log, stderr=log)


def disks(options, arena, size):
    made = []
    for number, kind in enumerate(KINDS):
        directory = os.path.join(options.disk, f"disk{number}")
        os.makedirs(directory, exist_ok=True)
        made.append(Disk(directory, os.path.join(arena.work, kind), options.file_system, size))
    return made


def store_uringd(uringd, files):
    """Everything has landed and waits for all three; then they are mounted, the daemon is started again, and begins with all of them
    at once. From the first stored file to the last, without those that were in flight with the first."""
    for disk in uringd.disks:
        disk.fresh()
        os.makedirs(disk.mountpoint, exist_ok=True)
    uringd.start()
    try:
        landed = os.path.join(uringd.arena.target, files.name)
        files.move_in()
        files.wait_until_visible(landed, PATIENCE_SECONDS)
        time.sleep(1)
        for disk in uringd.disks:
            disk.mount()
        uringd.restart_ppu()
        stored = [os.path.join(disk.mountpoint, "data", files.name) for disk in uringd.disks]
        count = lambda: sum(len(list_dir(directory)) for directory in stored)
        wait_until(lambda: count() > 0, PATIENCE_SECONDS, "a stored file")
        first, already = time.monotonic(), count()
        wait_until_fast(lambda: count() == len(stored) * files.count)
        seconds = time.monotonic() - first
        time.sleep(0.5)
        for directory in stored:
            files.verify(landed, directory)
    finally:
        uringd.stop()
        files.move_out()
        for disk in uringd.disks:
            disk.unmount()
    in_flight = max(already, 8 * len(stored))
    return Store(seconds, (len(stored) * files.count - in_flight) * files.size, 0)


def store_fio(all_disks, files):
    """One fio for each, started together; all bytes by the time of the slowest."""
    for disk in all_disks:
        disk.fresh()
        disk.mount()
    try:
        started = [
            subprocess.Popen(fio_command(disk, files), stdout=subprocess.PIPE, text=True, cwd="/") for disk in all_disks
        ]
        results = [fio_result(process.communicate()[0], files) for process in started]
    finally:
        for disk in all_disks:
            disk.unmount()
    return Store(max(one.seconds for one in results), sum(one.bytes for one in results), 0)


def landing(options, arena, limits, uringd):
    """Close to visible, with all three as they should be, and with the third one in trouble."""
    result = {}
    for trouble in ("none", "hung", "slow"):
        for disk in uringd.disks:
            disk.fresh()
            disk.mount()
        uringd.start()
        undo = lambda: None
        try:
            if trouble == "hung":
                undo = freeze(uringd.disks[2])
            elif trouble == "slow":
                undo = throttle(uringd.disks[2], uringd.daemons["ppu"].pid)
            source, target = os.path.join(arena.watched, "live"), os.path.join(arena.target, "live")
            for count in (LIVE_HZ, LIVE_HZ * LIVE_SECONDS):
                command = [limits, "live", source, target, str(count), str(LIVE_SIZE), str(LIVE_HZ)]
                run = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                time.sleep(IDLE_SECONDS)
        finally:
            undo()
            uringd.stop()
            for disk in uringd.disks:
                disk.unmount()
            arena.clear_target()
        micros = sorted(run["micros"])
        if run["missing"]:
            raise RuntimeError(f"{run['missing']} live files never appeared")
        result[trouble] = {"p50_us": micros[len(micros) // 2], "p99_us": micros[len(micros) * 99 // 100]}
    return result


def freeze(disk):
    subprocess.run(["fsfreeze", "-f", disk.mountpoint], check=True)
    return lambda: subprocess.run(["fsfreeze", "-u", disk.mountpoint], check=True)


def throttle(disk, pid):
    """By the blkio controller (version 1), which must be mounted."""
    group = f"/sys/fs/cgroup/blkio/ppu-bench-{os.getpid()}"
    os.makedirs(group, exist_ok=True)
    device = os.stat(disk.device).st_rdev
    with open(f"{group}/blkio.throttle.write_bps_device", "w") as rule:
        rule.write(f"{os.major(device)}:{os.minor(device)} {SLOW_BYTES_PER_SECOND}")
    with open(f"{group}/cgroup.procs", "w") as procs:
        procs.write(str(pid))

    def lift():
        with open("/sys/fs/cgroup/blkio/cgroup.procs", "w") as procs:
            procs.write(str(pid))
        os.rmdir(group)

    return lift


def wait_until_fast(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {PATIENCE_SECONDS} s: everything is stored")
        time.sleep(0.005)
