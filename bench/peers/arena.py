"""Where contenders meet: private mounts and network, sets of files, warm memory, clocks."""

import contextlib
import filecmp
import os
import shutil
import subprocess
import time

MB = 1_000_000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# tmpfs counts 20 bytes a name in a directory's size: its length is read without listing it.
TMPFS_NAME_BYTES = 20
# An empty one is as long as two.
TMPFS_EMPTY_NAMES = 2
POLL_SECONDS = 0.0005
HUGE_PAGE = 2 << 20
# So much warm memory is free ahead of a drain: more than anyone has in flight.
WARM_AHEAD = 192 * MB
# Of all free memory, so much is left to others while the rest is touched.
LEFT_FREE = 1500 * MB
# A virtual machine's kernel hands free blocks of that order and above back to its host, every two seconds (Documentation/mm/free_page_reporting.rst).
# Who gets such a block again waits milliseconds for it.
PAGE_REPORTING_ORDER = "/sys/module/page_reporting/parameters/page_reporting_order"
# No block is larger than of order 10; some kernels do not take a larger number.
NO_BLOCK, LARGEST_BLOCK = "11", "10"


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
    # HiDRA's are fixed (`hidra.PORT`, and its defaults): no connection may happen to begin there.
    write("/proc/sys/net/ipv4/ip_local_reserved_ports", "50000-50199")


@contextlib.contextmanager
def free_memory_kept():
    """Free memory stays warm meanwhile, where the kernel can be told so. True: it does."""
    try:
        before = stop_reporting()
    except (OSError, ValueError):
        yield False
        return
    try:
        yield True
    finally:
        if before:
            write(PAGE_REPORTING_ORDER, before)


def stop_reporting():
    """What is to be put back. Nothing, where the machine's owner has stopped it, or another run, which puts it back itself."""
    with open(PAGE_REPORTING_ORDER) as order:
        before = order.read()
    if int(before) >= int(LARGEST_BLOCK):
        return None
    try:
        write(PAGE_REPORTING_ORDER, NO_BLOCK)
    except OSError:
        write(PAGE_REPORTING_ORDER, LARGEST_BLOCK)
    return before


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


class Arena:
    """Directories below one temporary directory; `source` and `target` are two tmpfs of the same kind."""

    def __init__(self, root):
        self.root = root
        self.source = self._tmpfs("source")
        self.target = self._tmpfs("target")
        self.ballast = self._tmpfs("ballast", size="95%")
        self.work = os.path.join(root, "work")
        self.watched = os.path.join(self.source, "watched")
        self.prepared = os.path.join(self.source, "prepared")
        for directory in (self.work, self.watched, self.prepared):
            os.mkdir(directory)
        self.warm(0)

    def _tmpfs(self, name, size="6g"):
        path = os.path.join(self.root, name)
        os.mkdir(path)
        mount = ["mount", "-t", "tmpfs", "-o", f"huge=within_size,size={size},mode=755", "tmpfs", path]
        subprocess.run(mount, check=True)
        return path

    def warm(self, size):
        """Touches `size` bytes of memory; they are free and warm after `cool`."""
        block = b"\x55" * (4 << 20)
        with open(os.path.join(self.ballast, "ballast"), "wb") as ballast:
            ballast.truncate(size)
            for _ in range(0, size, len(block)):
                ballast.write(block)

    def warm_all(self):
        """Touches nearly all free memory. What takes a page here and there, as names and inodes do, does not take it from what `cool` has just freed."""
        with open("/proc/meminfo") as meminfo:
            fields = dict(line.split(":", 1) for line in meminfo)
        self.warm(max(0, int(fields["MemFree"].split()[0]) * 1024 - LEFT_FREE))
        self.cool()

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

    def move_in(self, watched=None):
        self.watched = os.path.join(watched or self.arena.watched, self.name)
        os.rename(self.home, self.watched)

    def move_out(self):
        if os.path.exists(self.watched):
            os.rename(self.watched, self.home)

    def remove(self):
        self.move_out()
        remove(self.home)

    def are_last_in(self, directory):
        return all(os.path.exists(os.path.join(directory, self.file(number))) for number in range(max(0, self.count - 2), self.count))

    def verify(self, source, directory):
        """Every file is there and the same, and nothing else is."""
        names = [self.file(number) for number in range(self.count)]
        if sorted(os.listdir(directory)) != names:
            raise RuntimeError(f"{directory}: not the {self.count} files that were sent")
        _, wrong, unread = filecmp.cmpfiles(source, directory, names, shallow=False)
        filecmp.clear_cache()
        if wrong or unread:
            raise RuntimeError(f"{directory}: {wrong + unread} differ")


def wait_until_visible(expected, patience, alive=lambda: True):
    """When the first and the last file of each set appeared in its directory, which is on tmpfs: `expected` is a list of (set,
    directory). Frees the warm memory in step with them."""
    arena, total = expected[0][0].arena, sum(files.bytes for files, _ in expected)
    times, freed = [[None, None] for _ in expected], 0
    deadline = time.monotonic() + patience
    while True:
        now, seen = time.monotonic(), 0
        for (files, directory), time_of in zip(expected, times):
            names = files.count if time_of[1] else names_in(directory)
            seen += names * files.size
            if names and time_of[0] is None:
                time_of[0] = now
            # Where several write, the last name may be there before others: so the last two. Temporary names count as names.
            if names >= files.count and not time_of[1] and files.are_last_in(directory):
                time_of[1] = now
        if seen - freed > WARM_AHEAD / 4:
            freed = seen
            arena.cool(total - freed - WARM_AHEAD)
        if all(last for _, last in times):
            return times
        if now > deadline or not alive():
            raise RuntimeError(f"{seen / total:.0%} of the files in {expected[0][1]} after {patience} s")
        time.sleep(POLL_SECONDS)


def names_in(directory):
    try:
        return os.stat(directory).st_size // TMPFS_NAME_BYTES - TMPFS_EMPTY_NAMES
    except FileNotFoundError:
        return 0


def cpu_seconds(pid, children=False):
    """User and system time of a process, all threads (io_uring's workers, too), to the nanosecond; with that of its ended children,
    to a tick."""
    # The clock of another process, as clock_getcpuclockid(3) makes it.
    seconds = time.clock_gettime((~pid << 3) | 2)
    if children:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        seconds += sum(map(int, fields[13:15])) / TICKS_PER_SECOND
    return seconds


def wait_until(condition, patience, what, every=0.02):
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {patience} s: {what}")
        time.sleep(every)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
