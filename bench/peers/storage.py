"""Storing: from the PPU's ramdisk to a fresh file system on a loop device. The same files, the same device, a new
file system for everyone."""

import json
import os
import subprocess
import time
from collections import namedtuple

from arena import cpu_seconds, wait_until
from contenders import PATIENCE_SECONDS, list_dir

Store = namedtuple("Store", "seconds bytes cpu")

# What is copied at a time by ppu-uringd (its default) and by fio.
QUEUE_DEPTH = 8


class Disk:
    """An image file that is written in full once, so that every contender overwrites the same blocks."""

    def __init__(self, directory, mountpoint, kind, size):
        self.image = os.path.join(directory, f"ppu-bench-{os.getpid()}.img")
        self.mountpoint, self.kind = mountpoint, kind
        block = b"\0" * (8 << 20)
        with open(self.image, "wb") as image:
            for _ in range(0, size, len(block)):
                image.write(block)
            os.fsync(image.fileno())
        attach = ["losetup", "--find", "--show", "--direct-io=on", self.image]
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
        os.unlink(self.image)


def store_uringd(uringd, disk, files):
    """Everything has landed and waits; the disk is mounted. From the first stored file to the last: how soon the daemon
    looks again for its disk is not the writer's speed. The files that were in flight with the first are not counted."""
    disk.fresh()
    uringd.start()
    try:
        landed = os.path.join(uringd.arena.target, files.name)
        files.move_in()
        files.wait_until_visible(landed, PATIENCE_SECONDS)
        time.sleep(1)
        before = uringd.cpu()[1]
        disk.mount()
        stored = os.path.join(disk.mountpoint, "data", files.name)
        wait_until(lambda: list_dir(stored), PATIENCE_SECONDS, "a stored file")
        first, already = time.monotonic(), len(list_dir(stored))
        while (count := len(list_dir(stored))) < files.count:
            if time.monotonic() > first + PATIENCE_SECONDS:
                raise RuntimeError(f"{count} of {files.count} files stored")
            time.sleep(0.005)
        seconds = time.monotonic() - first
        time.sleep(0.5)
        cpu = uringd.cpu()[1] - before
        files.verify(landed, stored)
    finally:
        uringd.stop()
        files.move_out()
        disk.unmount()
    in_flight = max(already, QUEUE_DEPTH)
    # CPU is for all files; speed for those after the first.
    return Store(seconds, (files.count - in_flight) * files.size, cpu * (files.count - in_flight) / files.count)


def store_plain(limits, disk, files, _arena):
    """One process: read, write, fsync, rename, file by file."""
    disk.fresh()
    disk.mount()
    try:
        process = subprocess.Popen([limits, "durable", files.home, disk.mountpoint], stdout=subprocess.PIPE, text=True)
        result = json.loads(process.stdout.readline())
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        os.path.isdir(f"{disk.mountpoint}/lost+found") and os.rmdir(f"{disk.mountpoint}/lost+found")
        files.verify(files.home, disk.mountpoint)
    finally:
        disk.unmount()
    return Store(result["seconds"], result["bytes"], usage.ru_utime + usage.ru_stime)


def store_fio(disk, files):
    """fio: fresh files of (nearly) the same size, O_DIRECT, one write a file, fsync on close, as many in flight."""
    disk.fresh()
    disk.mount()
    try:
        output = subprocess.run(fio_command(disk, files), check=True, capture_output=True, text=True, cwd="/").stdout
    finally:
        disk.unmount()
    return fio_result(output, files)


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
