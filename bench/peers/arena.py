"""Where contenders meet: private mounts and network, sets of files, warm memory, clocks."""

import filecmp
import os
import shutil
import subprocess
import time

MB = 1_000_000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# tmpfs counts 20 bytes a name in a directory's size: its length is read without listing it.
TMPFS_NAME_BYTES = 20
POLL_SECONDS = 0.0005
HUGE_PAGE = 2 << 20
# So much warm memory is free ahead of a drain: more than anyone has in flight.
WARM_AHEAD = 192 * MB


def enter_namespaces(arguments):
    """Replaces this process by one with its own network, mounts and processes; nothing of them outlives it."""
    inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", inside + arguments)


def set_up_network():
    """Loopback with cubic, whatever the host's default is: it may be one that paces loopback to a fraction."""
    for command in (
        "ip link set lo up",
        "ip route replace local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1 congctl cubic",
    ):
        subprocess.run(command.split(), check=True)


class Arena:
    """Directories below one temporary directory; `source` and `target` are two tmpfs of the same kind."""

    def __init__(self, root):
        self.root = root
        self.source = self._tmpfs("source")
        self.target = self._tmpfs("target")
        self.ballast = self._tmpfs("ballast")
        self.work = os.path.join(root, "work")
        self.watched = os.path.join(self.source, "watched")
        self.prepared = os.path.join(self.source, "prepared")
        for directory in (self.work, self.watched, self.prepared):
            os.mkdir(directory)
        self.warm(0)

    def _tmpfs(self, name):
        path = os.path.join(self.root, name)
        os.mkdir(path)
        mount = ["mount", "-t", "tmpfs", "-o", "huge=within_size,size=6g,mode=755", "tmpfs", path]
        subprocess.run(mount, check=True)
        return path

    def warm(self, size):
        """Touches `size` bytes of memory; they are free and warm after `cool`."""
        block = b"\x55" * (4 << 20)
        with open(os.path.join(self.ballast, "ballast"), "wb") as ballast:
            ballast.truncate(size)
            for _ in range(0, size, len(block)):
                ballast.write(block)

    def cool(self, left=0):
        """Frees what `warm` touched but for `left` bytes, which stay warm: free memory goes cold within a second."""
        os.truncate(os.path.join(self.ballast, "ballast"), max(0, left) // HUGE_PAGE * HUGE_PAGE)

    def clear_target(self):
        for entry in os.scandir(self.target):
            remove(entry.path)


class FileSet:
    """`count` files of `size` bytes in one directory on the source, moved in and out of the watched directory."""

    def __init__(self, arena, name, count, size):
        self.arena, self.name, self.count, self.size = arena, name, count, size
        self.bytes = count * size
        self.home = os.path.join(arena.prepared, name)
        self.watched = os.path.join(arena.watched, name)
        noise = os.urandom(size + 65536)
        os.mkdir(self.home)
        for number in range(count):
            with open(os.path.join(self.home, self.file(number)), "wb", buffering=0) as file:
                begin = number * 31 % 65536
                file.write(memoryview(noise)[begin : begin + size])
            os.chown(file.name, 500, 500)

    def file(self, number):
        return f"image_{number:06d}.cbf"

    def move_in(self):
        os.rename(self.home, self.watched)

    def move_out(self):
        if os.path.exists(self.watched):
            os.rename(self.watched, self.home)

    def wait_until_visible(self, directory, patience, alive=lambda: True):
        """When the first and the last file of the set appeared in `directory`, which is on tmpfs. Frees the warm memory
        in step with them."""
        freed = 0
        first, last_name = None, os.path.join(directory, self.file(self.count - 1))
        deadline = time.monotonic() + patience
        while True:
            now = time.monotonic()
            try:
                names = os.stat(directory).st_size // TMPFS_NAME_BYTES
            except FileNotFoundError:
                names = 0
            if names and first is None:
                first = now
            if names * self.size - freed > WARM_AHEAD / 4:
                freed = names * self.size
                self.arena.cool(self.bytes - freed - WARM_AHEAD)
            if names >= self.count and os.path.exists(last_name):
                return first, now
            if now > deadline or not alive():
                raise RuntimeError(f"{names} of {self.count} files in {directory} after {patience} s")
            time.sleep(POLL_SECONDS)

    def verify(self, source, directory):
        """Every file is there and the same, and nothing else is."""
        names = [self.file(number) for number in range(self.count)]
        if sorted(os.listdir(directory)) != names:
            raise RuntimeError(f"{directory}: not the {self.count} files that were sent")
        _, wrong, unread = filecmp.cmpfiles(source, directory, names, shallow=False)
        filecmp.clear_cache()
        if wrong or unread:
            raise RuntimeError(f"{directory}: {wrong + unread} differ")


def cpu_seconds(pid, children=False):
    """User and system time of a process, all threads; and of its ended children."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    user, system, of_children_user, of_children_system = map(int, fields[11:15])
    ticks = user + system
    if children:
        ticks += of_children_user + of_children_system
    return ticks / TICKS_PER_SECOND


def wait_until(condition, patience, what):
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {patience} s: {what}")
        time.sleep(0.02)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
