"""Storing: from the PPU's ramdisk to fresh file systems on loop devices, one or several at once. The same files, the same devices, new
file systems for everyone."""

import json
import os
import subprocess
import time
from collections import namedtuple

from arena import cpu_seconds, wait_until, wait_until_visible
from contenders import PATIENCE_SECONDS, list_dir, reap

Store = namedtuple("Store", "seconds bytes cpu")

# What is copied at a time by ppu-uringd (its default) and by fio.
QUEUE_DEPTH = 8
# The landed files of a PPU that starts are all pending before anything is copied.
FIO, PLAIN = "fio, O_DIRECT", "read+write+fsync"


def measure(bench, names):
    """One storage."""
    results = {}
    with bench.disks(1, max(bench.sets[name].bytes for name in names)) as disks:
        for name in names:
            files = bench.sets[name]
            runs = {FIO: lambda: store_fio(disks, files), PLAIN: lambda: store_plain(bench.limits, disks[0], files)}
            if not bench.options.without_uringd:
                for one in (bench.uringd("uring", disks=disks), bench.uringd("syscall", disks=disks)):
                    runs[one.name] = lambda one=one: store_uringd(one, files)
            results[name] = bench.interleaved(f"store {files.count} x {name}", runs)
    return {"file_system": bench.options.file_system, "results": results}


def measure_three(bench, name):
    """Three at once."""
    files = bench.sets[name]
    with bench.disks(3, files.bytes) as disks:
        ours = bench.uringd("uring", disks=disks)
        runs = {FIO: lambda: store_fio(disks, files), ours.name: lambda: store_uringd(ours, files)}
        results = {name: bench.interleaved(f"three storages, {files.count} x {name}", runs)}
    return {"file_system": bench.options.file_system, "results": results}


def store_uringd(uringd, files):
    """Everything has landed and waits; then the disks are mounted, the daemon is started again, and begins with all of them at once.
    From the first stored file to the last, without those that were in flight with the first: how soon the daemon begins is not
    the writers' speed."""
    disks = uringd.disks
    for disk in disks:
        disk.fresh()
    uringd.start()
    try:
        landed = os.path.join(uringd.target(), files.name)
        files.move_in()
        wait_until_visible([(files, landed)], PATIENCE_SECONDS)
        time.sleep(1)
        for disk in disks:
            disk.mount()
        uringd.restart_ppu()
        stored = [os.path.join(disk.mountpoint, "data", files.name) for disk in disks]
        count = lambda: sum(len(list_dir(directory)) for directory in stored)
        wait_until(lambda: count() > 0, PATIENCE_SECONDS, "a stored file")
        first, already, before = time.monotonic(), count(), uringd.cpu()[1]
        wait_until(lambda: count() == len(stored) * files.count, PATIENCE_SECONDS, "everything is stored", every=0.005)
        seconds = time.monotonic() - first
        time.sleep(0.5)
        cpu = uringd.cpu()[1] - before
        for directory in stored:
            files.verify(landed, directory)
    finally:
        uringd.stop()
        files.move_out()
        for disk in disks:
            disk.unmount()
    in_flight = max(already, QUEUE_DEPTH * len(stored))
    return Store(seconds, (len(stored) * files.count - in_flight) * files.size, cpu)


def store_plain(limits, disk, files):
    """One process: read, write, fsync, rename, file by file."""
    disk.fresh()
    disk.mount()
    try:
        process = subprocess.Popen([limits, "durable", files.home, disk.mountpoint], stdout=subprocess.PIPE, text=True)
        result = json.loads(process.stdout.readline())
        cpu = reap(process, "limits")
        os.path.isdir(f"{disk.mountpoint}/lost+found") and os.rmdir(f"{disk.mountpoint}/lost+found")
        files.verify(files.home, disk.mountpoint)
    finally:
        disk.unmount()
    return Store(result["seconds"], result["bytes"], cpu)


def store_fio(disks, files):
    """One fio for each, started together; all bytes by the time of the slowest: fresh files of (nearly) the same size, O_DIRECT, one
    write a file, fsync on close, as many in flight."""
    for disk in disks:
        disk.fresh()
        disk.mount()
    try:
        started = [subprocess.Popen(fio_command(disk, files), stdout=subprocess.PIPE, text=True, cwd="/") for disk in disks]
        results = [fio_result(process.communicate()[0], files) for process in started]
    finally:
        for disk in disks:
            disk.unmount()
    return Store(max(one.seconds for one in results), sum(one.bytes for one in results), sum(one.cpu for one in results))


def fio_command(disk, files):
    size = fio_size(files)
    return [
        "fio", "--name=store", f"--directory={disk.mountpoint}", "--ioengine=psync", "--direct=1", "--rw=write",
        f"--numjobs={QUEUE_DEPTH}", "--thread", "--group_reporting", f"--nrfiles={files.count // QUEUE_DEPTH}", f"--filesize={size}",
        f"--bs={size}", "--create_on_open=1", "--fallocate=none", "--fsync_on_close=1", "--file_service_type=sequential",
        "--openfiles=1", "--output-format=json",
    ]  # fmt: skip


def fio_result(output, files):
    job = json.loads(output[output.index("{") :])["jobs"][0]
    written = job["write"]
    if written["io_bytes"] != files.count // QUEUE_DEPTH * QUEUE_DEPTH * fio_size(files):
        raise RuntimeError(f"fio wrote {written['io_bytes']} bytes")
    seconds = written["io_bytes"] / written["bw_bytes"]
    return Store(seconds, written["io_bytes"], (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000)


def fio_size(files):
    return (files.size + 4095) // 4096 * 4096


class Disk:
    """An image file that is written in full once, so that every contender overwrites the same blocks."""

    def __init__(self, image, mountpoint, kind, size):
        self.mountpoint, self.kind = mountpoint, kind
        block = b"\0" * (8 << 20)
        with open(image, "wb") as file:
            for _ in range(0, size, len(block)):
                file.write(block)
            os.fsync(file.fileno())
        attach = ["losetup", "--find", "--show", "--direct-io=on", image]
        self.device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()

    def fresh(self):
        """An empty file system, not mounted."""
        self.unmount()
        ext4 = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]
        make = {"ext4": ext4, "xfs": ["mkfs.xfs", "-q", "-f", "-K"]}[self.kind]
        subprocess.run([*make, self.device], check=True)

    def mount(self):
        os.makedirs(self.mountpoint, exist_ok=True)
        subprocess.run(["mount", self.device, self.mountpoint], check=True)

    def unmount(self):
        if os.path.ismount(self.mountpoint):
            subprocess.run(["umount", self.mountpoint], check=True)

    def close(self):
        self.unmount()
        subprocess.run(["losetup", "--detach", self.device], check=True)
