"""The examples, as `python -m` runs them."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest
from pathlib import Path

from .daemons import PATIENCE, UID, Daemons, wait_until

PACKAGE = Path(__file__).resolve().parents[1]


def command(module, *arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": str(PACKAGE), "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}


class Examples(unittest.TestCase):
    def setUp(self):
        self.daemons = Daemons()
        self.addCleanup(self.daemons.close)
        self.daemons.start("ppu")

    def start(self, module, *arguments):
        process = subprocess.Popen(
            command(module, *arguments),
            stdout=subprocess.PIPE,
            env=environment(),
            universal_newlines=True,
            # A shell that runs the tests in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_table_again_and_again(self):
        self.daemons.start("detector")
        for module in ("ppu_uringd.examples.status_table", "dectris.grimsel.examples.GrimselStatus_0"):
            process = self.start(module, "127.0.0.1", self.daemons.status_port, "--every", 0.05)
            name = module + ".cbf"
            self.daemons.write(name)
            copied = 1 if module.startswith("ppu") else 2
            row = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +%d +\d+  internal +0 +%d +0$" % (UID, copied))
            lines = 0
            for line in process.stdout:
                lines += 1
                if row.match(line.rstrip("\n")):
                    break
                self.assertLess(lines, 10_000)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(PATIENCE), 0)

    def test_table_says_that_nobody_answers_and_goes_on(self):
        self.daemons.stop("ppu")
        module = "ppu_uringd.examples.status_table"
        process = self.start(module, "127.0.0.1", self.daemons.status_port, "--every", 0.05)
        self.assertIn("no daemon answers", process.stdout.readline())
        self.daemons.start("ppu")
        for line in process.stdout:
            if line.startswith("usertime"):
                break

    def test_a_callback_for_every_code(self):
        module = "ppu_uringd.examples.message_callbacks"
        process = self.start(module, "127.0.0.1", self.daemons.message_port, "--timeout", 0.05)
        self.daemons.start("detector")
        for name in ("a.cbf", "b.cbf"):
            # It may not have subscribed yet when the first one is told.
            self.daemons.cannot_land(name)
        numbers = iter(range(1000))
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)

        def told():
            if poll.poll(500):
                return True
            self.daemons.cannot_land("c%d.cbf" % next(numbers))
            return False

        wait_until("the program says something", told)
        self.assertRegex(process.stdout.readline(), r"^.*\.cbf was not copied to ramdisk\. ")

    def test_every_image_once_also_over_restarts(self):
        state = self.daemons.dir / "last"
        options = (self.daemons.message_port, "--state", state, "--reconnect", 0.05)
        module = "ppu_uringd.examples.events"
        process = self.start(module, "127.0.0.1", *options)
        wait_until("it has subscribed", state.exists)
        self.daemons.start("detector")
        self.daemons.write("a.cbf")
        self.assertIn("/a.cbf 8 ", process.stdout.readline())
        self.daemons.stop("ppu")
        self.daemons.write("b.cbf")
        self.daemons.start("ppu")
        self.assertIn("/b.cbf 8 ", process.stdout.readline())
        self.daemons.write("c.cbf")
        line = process.stdout.readline()
        self.assertIn("/c.cbf 8 ", line)
        wait_until("c.cbf is noted", lambda: state.read_text().split() == line.split()[:1])
        process.kill()
        process.wait()
        # Away for a while; and then with a program of its own, which tells what it gets.
        self.daemons.write("d.cbf")
        process = self.start(module, "127.0.0.1", *options, "--detector", "1MF", "--run", "/bin/echo")
        line = process.stdout.readline().rstrip("\n")
        self.assertTrue(line.endswith("/d.cbf"), line)
        self.assertEqual(Path(line).read_bytes(), b"an image")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 0)
        process = subprocess.run(
            command(module, "127.0.0.1", *options, "--detector", "2MF"),
            stderr=subprocess.PIPE,
            env=environment(),
            universal_newlines=True,
            timeout=PATIENCE,
        )
        self.assertEqual(process.returncode, 1)
        self.assertIn('there is no detector "2MF"; there are: 1MF', process.stderr)

    def test_curses_in_a_terminal(self):
        for module in ("ppu_uringd.examples.status_curses", "dectris.grimsel.examples.GrimselStatus"):
            with self.subTest(module):
                self.see(module)

    def see(self, module):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        process = subprocess.Popen(
            command(module, "127.0.0.1", self.daemons.status_port, "--every", 0.1),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(),
            start_new_session=True,
        )
        os.close(slave)
        try:
            self.screen(master, b"usertime", b"internal")
            # A small terminal is no reason to end.
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 2, 10, 0, 0))
            process.send_signal(signal.SIGWINCH)
            self.screen(master, b"ppu-urin")
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
            process.send_signal(signal.SIGWINCH)
            self.daemons.stop("ppu")
            self.screen(master, b"no daemon answers")
            self.daemons.start("ppu")
            self.screen(master, b"usertime")
            os.write(master, b"q")
            wait_until("it ends", lambda: self.ended(process, master))
            self.assertEqual(process.returncode, 0)
        finally:
            process.kill()
            process.wait()
            os.close(master)

    def ended(self, process, master):
        self.read(master, 0.01)
        return process.poll() is not None

    def screen(self, master, *texts):
        """Reads until all of these were written."""
        written = b""
        start = time.monotonic()
        while not all(text in written for text in texts):
            self.assertLess(time.monotonic() - start, PATIENCE, written)
            written += self.read(master, 0.1)

    def read(self, master, seconds):
        if not select.select([master], [], [], seconds)[0]:
            return b""
        try:
            return os.read(master, 65536)
        except OSError:
            return b""  # The other end is closed.
