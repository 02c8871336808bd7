"""The others: rsync, lsyncd, and what the kernel can do. A drain is (seconds, seconds from first to last file, CPU of the sender, CPU of
the receiver)."""

import json
import os
import subprocess
import time
from collections import namedtuple

from arena import WARM_AHEAD, cpu_seconds, remove, wait_until, wait_until_visible

Drain = namedtuple("Drain", "seconds first_to_last sender_cpu receiver_cpu")

# Both sides are left alone for so long before a clock starts, and after the last file, so that CPU time which is
# spent on a file after it has become visible counts too.
IDLE_SECONDS = 0.4
PATIENCE_SECONDS = 60


class Rsync:
    """An rsync daemon on the detector's side, and processes that pull, as the predecessor did: `rsync -a --whole-file`. Two
    of them get every second file each."""

    PORT = "8730"

    def __init__(self, arena, processes=1):
        self.name = "rsync" if processes == 1 else f"rsync x {processes}"
        self.arena, self.processes = arena, processes
        self.config = write_module(arena, "source", arena.watched)

    def drain(self, files):
        daemon = rsync_daemon(self.config, self.PORT)
        landed = os.path.join(self.arena.target, files.name)
        try:
            time.sleep(IDLE_SECONDS)
            files.move_in()
            self.arena.warm(files.bytes)
            before = cpu_seconds(daemon.pid, children=True)
            commands = self._commands(files)
            self.arena.cool(files.bytes - WARM_AHEAD)
            begun = time.monotonic()
            clients = [subprocess.Popen(command) for command in commands]
            ((first, last),) = wait_until_visible([(files, landed)], PATIENCE_SECONDS)
            receiver = sum(reap(client, "rsync") for client in clients)
            time.sleep(IDLE_SECONDS)
            sender = cpu_seconds(daemon.pid, children=True) - before
            files.verify(files.watched, landed)
        finally:
            daemon.terminate()
            daemon.wait()
            files.move_out()
        return Drain(last - begun, last - first, sender, receiver)

    def _commands(self, files):
        url = f"rsync://127.0.0.1:{self.PORT}/source/{files.name}"
        if self.processes == 1:
            return [["rsync", "-a", "--whole-file", url, self.arena.target + "/"]]
        commands = []
        for process in range(self.processes):
            # By the last digit of the number.
            mine = "".join(str(digit) for digit in range(process, 10, self.processes))
            only = [f"--include=*[{mine}].cbf", "--exclude=*.cbf"]
            commands.append(["rsync", "-a", "--whole-file", *only, url, self.arena.target + "/"])
        return commands


class Lsyncd:
    """lsyncd on the detector's side: inotify, and an rsync process for each batch of events, to an rsync daemon on the other side."""

    name = "lsyncd"
    PORT = "8732"

    def __init__(self, arena):
        self.arena, self.processes = arena, {}
        self.module = write_module(arena, "target", arena.target, "read only = no\n")
        self.config = os.path.join(arena.work, "lsyncd.lua")
        with open(self.config, "w") as file:
            file.write(LSYNCD.format(source=arena.watched, port=self.PORT, work=arena.work))

    def start(self):
        os.makedirs(os.path.join(self.arena.watched, "live"))
        probe = os.path.join(self.arena.watched, "live", "probe.cbf")
        with open(probe, "wb") as file:
            file.write(os.urandom(100_000))
        self.processes["receiver"] = rsync_daemon(self.module, self.PORT)
        time.sleep(IDLE_SECONDS)
        log = open(os.path.join(self.arena.work, "lsyncd.log"), "wb")
        self.processes["sender"] = subprocess.Popen(["lsyncd", "-nodaemon", self.config], stdout=log, stderr=log)
        wait_until(lambda: os.path.exists(os.path.join(self.arena.target, "live", "probe.cbf")), 20, "lsyncd sends a file")
        time.sleep(IDLE_SECONDS)

    def stop(self):
        for process in self.processes.values():
            process.terminate()
            process.wait()
        self.processes = {}
        remove(os.path.join(self.arena.watched, "live"))

    def cpu(self):
        return [cpu_seconds(self.processes[side].pid, children=True) for side in ("sender", "receiver")]

    def drain(self, files):
        landed = os.path.join(self.arena.target, files.name)
        self.start()
        try:
            self.arena.warm(files.bytes)
            before = self.cpu()
            self.arena.cool(files.bytes - WARM_AHEAD)
            begun = time.monotonic()
            files.move_in()
            ((first, last),) = wait_until_visible([(files, landed)], PATIENCE_SECONDS)
            # Its rsync ends a little later, and only then is it known what that has cost.
            time.sleep(3 * IDLE_SECONDS)
            after = self.cpu()
            files.verify(files.watched, landed)
        finally:
            self.stop()
            files.move_out()
        return Drain(last - begun, last - first, after[0] - before[0], after[1] - before[1])


# No pause to gather events, nothing is deleted over there; the rest is its default for rsync.
LSYNCD = """
settings {{ nodaemon = true, statusFile = "{work}/lsyncd.status", inotifyMode = "CloseWrite" }}
sync {{
    default.rsync, source = "{source}", target = "rsync://127.0.0.1:{port}/target/",
    delay = 0, delete = false, rsync = {{ archive = true, whole_file = true, compress = false }}
}}
"""


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
        cpu = [reap(process, "limits") for process in (sender, receiver)]
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
        cpu = reap(process, "limits")
        files.verify(files.home, landed)
        return Drain(result["seconds"], result["seconds"], 0.0, cpu)


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


def write_module(arena, name, path, more=""):
    """A configuration of an rsync daemon that offers `path`."""
    config = os.path.join(arena.work, f"rsyncd-{name}.conf")
    with open(config, "w") as file:
        file.write(f"use chroot = no\nuid = 0\ngid = 0\n[{name}]\npath = {path}\n{more}")
    return config


def rsync_daemon(config, port):
    return subprocess.Popen(["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={port}"])


def reap(process, name):
    """Waits for its end; the CPU time that it and its children have used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def list_dir(path):
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
