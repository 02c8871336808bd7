"""The contenders. A drain is (seconds, seconds from first to last file, CPU of the sender, CPU of the receiver)."""

import json
import os
import signal
import subprocess
import time
from collections import namedtuple

from arena import WARM_AHEAD, cpu_seconds, remove, wait_until

Drain = namedtuple("Drain", "seconds first_to_last sender_cpu receiver_cpu")

# Both sides are left alone for so long before a clock starts, and after the last file, so that CPU time which is
# spent on a file after it has become visible counts too.
IDLE_SECONDS = 0.4
PATIENCE_SECONDS = 120


class Uringd:
    """Both daemons, connected by TCP. The storage is not mounted: nothing is copied on while landing is measured."""

    def __init__(self, arena, binary, engine, verify="publish"):
        self.name = f"ppu-uringd {engine}" + ("" if verify == "publish" else ", verify off")
        self.arena, self.binary, self.engine, self.verify = arena, binary, engine, verify
        self.here = os.path.join(arena.work, "uringd")
        self.storage = os.path.join(arena.work, "storage")
        self.daemons = {}

    def start(self):
        """Starts both; returns when a first small run has landed, so that everything is connected and warm."""
        if os.path.exists(self.here):
            remove(self.here)
        for directory in (self.here, f"{self.here}/detector", f"{self.here}/ppu"):
            os.mkdir(directory)
        os.makedirs(self.storage, exist_ok=True)
        self._write("detector.toml", DETECTOR)
        self._write("ppu.toml", PPU)
        for role in ("detector", "ppu"):
            log = open(os.path.join(self.here, f"{role}.log"), "wb")
            command = [self.binary, role, "--config", os.path.join(self.here, f"{role}.toml")]
            self.daemons[role] = subprocess.Popen(command, stdout=log, stderr=log)
        probe = os.path.join(self.arena.watched, "live")
        os.makedirs(probe)
        for number in range(4):
            with open(os.path.join(probe, f"probe_{number}.cbf"), "wb") as file:
                file.write(os.urandom(2_400_000))
        landed = os.path.join(self.arena.target, "live")
        wait_until(lambda: self._alive() and len(list_dir(landed)) == 4, 20, f"{self.name} lands a file")
        time.sleep(IDLE_SECONDS)

    def stop(self):
        for daemon in self.daemons.values():
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons = {}
        for name in os.listdir(self.arena.watched):
            if name == "live":
                remove(os.path.join(self.arena.watched, name))

    def drain(self, files):
        landed = os.path.join(self.arena.target, files.name)
        self.start()
        try:
            self.arena.warm(files.bytes)
            before = self.cpu()
            self.arena.cool(files.bytes - WARM_AHEAD)
            begun = time.monotonic()
            files.move_in()
            first, last = files.wait_until_visible(landed, PATIENCE_SECONDS, self._alive)
            time.sleep(IDLE_SECONDS)
            after = self.cpu()
            files.verify(files.watched, landed)
        finally:
            self.stop()
            files.move_out()
        return Drain(last - begun, last - first, after[0] - before[0], after[1] - before[1])

    def cpu(self):
        return [cpu_seconds(self.daemons[role].pid) for role in ("detector", "ppu")]

    def _alive(self):
        for role, daemon in self.daemons.items():
            if daemon.poll() is not None:
                log = open(os.path.join(self.here, f"{role}.log"), errors="replace").read()
                raise RuntimeError(f"ppu-uringd {role} ended ({daemon.returncode}):\n{log[-2000:]}")
        return True

    def _write(self, name, text):
        values = vars(self) | {"watched": self.arena.watched, "target": self.arena.target}
        with open(os.path.join(self.here, name), "w") as file:
            file.write(text.format(**values))


DETECTOR = """
listen = "127.0.0.1:49371"
ramdisk = "{watched}"
state_dir = "{here}/detector"
engine = "{engine}"
[log]
level = "warn"
"""

PPU = """
state_dir = "{here}/ppu"
ramdisk = "{target}"
uid = 500
gid = 500
user_dir = ""
verify = "{verify}"
engine = "{engine}"
[interfaces]
status = "off"
messages = "off"
http = "off"
file_pipe = "{here}/files"
intake_roots = ["{target}"]
control = "{here}/control.sock"
[log]
level = "warn"
[[detector]]
id = "1"
address = "127.0.0.1:49371"
target = "{target}"
[[storage]]
id = "internal"
kind = "internal"
target = "{storage}/data"
mountpoint = "{storage}"
"""


class Rsync:
    """An rsync daemon on the detector's side and one `rsync -a --whole-file` that pulls, as the predecessor did."""

    name = "rsync"
    PORT = "8730"

    def __init__(self, arena):
        self.arena = arena
        self.config = os.path.join(arena.work, "rsyncd.conf")
        with open(self.config, "w") as file:
            file.write(f"use chroot = no\nuid = 0\ngid = 0\n[source]\npath = {arena.watched}\n")

    def drain(self, files):
        daemon = subprocess.Popen(["rsync", "--daemon", "--no-detach", f"--config={self.config}", f"--port={self.PORT}"])
        landed = os.path.join(self.arena.target, files.name)
        try:
            time.sleep(IDLE_SECONDS)
            files.move_in()
            self.arena.warm(files.bytes)
            before = cpu_seconds(daemon.pid, children=True)
            self.arena.cool(files.bytes - WARM_AHEAD)
            url = f"rsync://127.0.0.1:{self.PORT}/source/{files.name}"
            begun = time.monotonic()
            client = subprocess.Popen(["rsync", "-a", "--whole-file", url, self.arena.target + "/"])
            first, last = files.wait_until_visible(landed, PATIENCE_SECONDS)
            _, status, usage = os.wait4(client.pid, 0)
            client.returncode = os.waitstatus_to_exitcode(status)
            if client.returncode:
                raise RuntimeError(f"rsync ended with {client.returncode}")
            time.sleep(IDLE_SECONDS)
            sender = cpu_seconds(daemon.pid, children=True) - before
            files.verify(files.watched, landed)
        finally:
            daemon.terminate()
            daemon.wait()
            files.move_out()
        return Drain(last - begun, last - first, sender, usage.ru_utime + usage.ru_stime)


class SendfileDrop:
    """The limit of one connection: sendfile(2) on one side; the other receives into one buffer and keeps nothing."""

    name = "sendfile, dropped"
    PORT = "8731"

    def __init__(self, arena, limits):
        self.arena, self.limits = arena, limits

    def drain(self, files):
        sender = subprocess.Popen([self.limits, "serve", self.PORT, files.home])
        receiver = subprocess.Popen(
            [self.limits, "drop", self.PORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert receiver.stdout.readline() == "ready\n"
        time.sleep(IDLE_SECONDS)
        receiver.stdin.write("\n")
        receiver.stdin.flush()
        result = json.loads(receiver.stdout.readline())
        cpu = []
        for process in (sender, receiver):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu.append(usage.ru_utime + usage.ru_stime)
        if result["bytes"] != files.bytes:
            raise RuntimeError(f"sendfile: {result['bytes']} of {files.bytes} bytes arrived")
        return Drain(result["seconds"], result["seconds"], *cpu)


class LocalCopy:
    """No network: one process copies from tmpfs to tmpfs."""

    def __init__(self, arena, limits, how):
        self.name = {"splice": "local splice", "copy": "local read+write"}[how]
        self.arena, self.limits, self.how = arena, limits, how

    def drain(self, files):
        landed = os.path.join(self.arena.target, files.name)
        os.mkdir(landed)
        self.arena.warm(files.bytes)
        self.arena.cool()
        process = subprocess.Popen([self.limits, self.how, files.home, landed], stdout=subprocess.PIPE, text=True)
        result = json.loads(process.stdout.readline())
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        files.verify(files.home, landed)
        return Drain(result["seconds"], result["seconds"], 0.0, usage.ru_utime + usage.ru_stime)


class Relay:
    """No network, nothing compared: one local process copies what is closed and renames it. What live work costs on this machine at the least."""

    name = "local read+write+rename"

    def __init__(self, arena, limits):
        self.arena, self.limits, self.process = arena, limits, None

    def start(self):
        source, target = os.path.join(self.arena.watched, "live"), os.path.join(self.arena.target, "live")
        for directory in (source, target):
            os.makedirs(directory)
        self.process = subprocess.Popen([self.limits, "relay", source, target], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def stop(self):
        self.process.kill()
        self.process.wait()
        remove(os.path.join(self.arena.watched, "live"))

    def cpu(self):
        return [0.0, cpu_seconds(self.process.pid)]


def list_dir(path):
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
