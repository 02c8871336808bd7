"""Both halves of ppu-uringd as a contender: real daemons, connected by TCP."""

import json
import os
import signal
import subprocess
import time

from arena import WARM_AHEAD, cpu_seconds, remove, wait_until, wait_until_visible
from contenders import IDLE_SECONDS, PATIENCE_SECONDS, Drain, list_dir

PORT = 49371
KINDS = ("internal", "optional", "external")


class Uringd:
    """`detectors` of them, and a storage for each of `disks`. Without disks, one that is not mounted: nothing is copied on
    while landing is measured."""

    def __init__(self, arena, binary, engine, verify="publish", disks=(), detectors=1, marks=""):
        self.name = f"ppu-uringd {engine}" + ("" if verify == "publish" else ", verify off")
        self.arena, self.binary, self.engine, self.verify = arena, binary, engine, verify
        self.disks, self.detectors, self.marks = disks, detectors, marks
        self.here = os.path.join(arena.work, "uringd")
        self.daemons = {}

    def watched(self, detector=0):
        return self.arena.watched if self.detectors == 1 else os.path.join(self.arena.watched, str(detector))

    def target(self, detector=0):
        return self.arena.target if self.detectors == 1 else os.path.join(self.arena.target, str(detector))

    def start(self):
        """Starts all; returns when a first small run has landed, so that everything is connected and warm."""
        if os.path.exists(self.here):
            remove(self.here)
        os.makedirs(f"{self.here}/ppu")
        self._write("ppu.toml", self._ppu())
        for number in range(self.detectors):
            os.makedirs(f"{self.here}/detector{number}")
            os.makedirs(self.watched(number), exist_ok=True)
            self._write(f"detector{number}.toml", DETECTOR.format(number=number, port=PORT + number, ramdisk=self.watched(number), **vars(self)))
            self._spawn("detector", number)
        self._spawn("ppu")
        for number in range(self.detectors):
            probe = os.path.join(self.watched(number), "live")
            os.makedirs(probe)
            for file in range(4):
                with open(os.path.join(probe, f"probe_{file}.cbf"), "wb") as probe_file:
                    probe_file.write(os.urandom(2_400_000))
        landed = lambda: all(len(list_dir(os.path.join(self.target(number), "live"))) == 4 for number in range(self.detectors))
        wait_until(lambda: self._alive() and landed(), 20, f"{self.name} lands a file")
        time.sleep(IDLE_SECONDS)

    def restart_ppu(self):
        self.daemons["ppu"].terminate()
        self.daemons["ppu"].wait(20)
        self._spawn("ppu")

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
        for number in range(self.detectors):
            if "live" in list_dir(self.watched(number)):
                remove(os.path.join(self.watched(number), "live"))

    def drain(self, files):
        landed = os.path.join(self.target(), files.name)
        self.start()
        try:
            self.arena.warm(files.bytes)
            before = self.cpu()
            self.arena.cool(files.bytes - WARM_AHEAD)
            begun = time.monotonic()
            files.move_in()
            ((first, last),) = wait_until_visible([(files, landed)], PATIENCE_SECONDS, self._alive)
            time.sleep(IDLE_SECONDS)
            after = self.cpu()
            files.verify(files.watched, landed)
        finally:
            self.stop()
            files.move_out()
        return Drain(last - begun, last - first, after[0] - before[0], after[1] - before[1])

    def cpu(self):
        """Of the detectors, of the PPU."""
        detectors = [cpu_seconds(daemon.pid) for role, daemon in self.daemons.items() if role != "ppu"]
        return [sum(detectors), cpu_seconds(self.daemons["ppu"].pid)]

    def status(self):
        return json.loads(self.command("status", "--json"))

    def pending(self, storage):
        """Files that wait for their copy."""
        return sum(one["pending"] for one in self.status()["storages"] if one["id"] == storage)

    def command(self, *words):
        command = [self.binary, *words, "--control", f"{self.here}/control.sock"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _spawn(self, role, number=None):
        name = role if number is None else f"{role}{number}"
        with open(os.path.join(self.here, f"{name}.log"), "ab") as log:
            command = [self.binary, role, "--config", os.path.join(self.here, f"{name}.toml")]
            self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _alive(self):
        for role, daemon in self.daemons.items():
            if daemon.poll() is not None:
                log = open(os.path.join(self.here, f"{role}.log"), errors="replace").read()
                raise RuntimeError(f"ppu-uringd {role} ended ({daemon.returncode}):\n{log[-2000:]}")
        return True

    def _ppu(self):
        text = PPU.format(ramdisk=self.arena.target, **vars(self))
        for number in range(self.detectors):
            text += DETECTOR_OF_PPU.format(number=number, port=PORT + number, target=self.target(number))
        storages = [(kind, disk.mountpoint) for kind, disk in zip(KINDS, self.disks)]
        for kind, mountpoint in storages or [("internal", os.path.join(self.arena.work, "nothing"))]:
            os.makedirs(mountpoint, exist_ok=True)
            text += STORAGE.format(kind=kind, mountpoint=mountpoint)
        return text

    def _write(self, name, text):
        with open(os.path.join(self.here, name), "w") as file:
            file.write(text)


DETECTOR = """
listen = "127.0.0.1:{port}"
ramdisk = "{ramdisk}"
state_dir = "{here}/detector{number}"
engine = "{engine}"
[log]
level = "warn"
"""

PPU = """
state_dir = "{here}/ppu"
ramdisk = "{ramdisk}"
uid = 500
gid = 500
user_dir = ""
verify = "{verify}"
engine = "{engine}"
{marks}
[interfaces]
status = "off"
messages = "off"
http = "off"
file_pipe = "off"
old_file_pipe = "off"
intake_roots = ["{ramdisk}"]
control = "{here}/control.sock"
[log]
level = "warn"
"""

DETECTOR_OF_PPU = """
[[detector]]
id = "{number}"
address = "127.0.0.1:{port}"
target = "{target}"
"""

STORAGE = """
[[storage]]
id = "{kind}"
kind = "{kind}"
target = "{mountpoint}/data"
mountpoint = "{mountpoint}"
"""
