"""Scripts of users against the real daemon."""

import os
import threading
import time
import unittest

import ppu_uringd
from dectris.grimsel import DAbstractMessageClient, DClientSocket, DQueryStatusClient

from .daemons import GID, PATIENCE, UID, Daemons, wait_until


class Recorder(DAbstractMessageClient.DAbstractMessageClient):
    """A callback for every code, in a thread of its own."""

    def __init__(self, port, timeout=0):
        super(DAbstractMessageClient.DAbstractMessageClient, self).__init__()
        self.setHost("127.0.0.1")
        self.setPort(str(port))
        self.setTimeout(timeout)
        self.heard = []
        self.raised = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        # From then on it misses nothing.
        wait_until("it is connected", lambda: self._last is not None)

    def run(self):
        try:
            self.connect()
        except Exception as error:
            self.raised = error

    def processMessage(self, errcode, shortmessage, longmessage):
        self.heard.append((errcode, shortmessage, longmessage))

    def shorts(self):
        return [short for _, short, _ in self.heard]


class WithDaemons(unittest.TestCase):
    def setUp(self):
        self.daemons = Daemons()
        self.addCleanup(self.daemons.close)
        self.daemons.start("ppu")

    def test_status(self):
        client = DQueryStatusClient.DQueryStatusClient("127.0.0.1", str(self.daemons.status_port))
        begun = time.time()
        self.daemons.start("detector")
        self.daemons.write("a.cbf")
        rows = wait_until("a.cbf is copied", lambda: [r for r in client.queryStatus() if r["copied"] == 1])
        (row,) = rows
        self.assertEqual(
            list(row), ["usertime", "uid", "gid", "storage", "pending", "copied", "failed"]
        )
        self.assertEqual((row["uid"], row["gid"], row["storage"]), (UID, GID, "internal"))
        self.assertEqual((row["pending"], row["failed"]), (0, 0))
        start = time.mktime(time.strptime(row["usertime"], "%Y-%m-%d %H:%M:%S"))
        self.assertLess(abs(begun - start), PATIENCE)
        self.assertEqual(client.queryStatus(1), rows)
        self.assertEqual(client.queryStatus(nusers=0), [])
        with self.assertRaises(DClientSocket.DSocketNoConnect) as raised:
            client.queryStatus(-2)
        self.assertIn("nusers is a number of shifts", str(raised.exception))

        (copies,) = ppu_uringd.status(host="127.0.0.1", port=self.daemons.status_port)
        self.assertEqual((copies.copied, copies.produced, copies.usertime), (1, 1, row["usertime"]))
        self.assertEqual(int(copies.start.timestamp()), int(start))

    def test_the_wrong_port_is_no_riddle(self):
        with self.assertRaises(ppu_uringd.Error):
            ppu_uringd.status(host="127.0.0.1", port=self.daemons.message_port)
        with self.assertRaises(ppu_uringd.Error):
            ppu_uringd.messages(host="127.0.0.1", port=self.daemons.status_port).connect()

    def test_old_codes_and_an_exception_without_a_timeout(self):
        client = Recorder(self.daemons.message_port)
        self.daemons.cannot_land("a.cbf")
        self.daemons.start("detector")
        wait_until("it is told", lambda: client.heard)
        code, short, long = client.heard[0]
        self.assertEqual(code, DAbstractMessageClient.COPY_ERROR)
        self.assertTrue(short.endswith("a.cbf:ramdisk"), short)
        self.assertIn("Move or rename", long)
        self.daemons.stop("ppu")
        client.thread.join(PATIENCE)
        self.assertIsInstance(client.raised, DClientSocket.DSocketNoConnect)

    def test_reconnects_with_a_timeout_and_misses_nothing(self):
        self.daemons.start("detector")
        client = Recorder(self.daemons.message_port, timeout=0.05)
        everything = Recorder.__new__(Recorder)
        everything.setAllCodes(True)
        Recorder.__init__(everything, self.daemons.message_port, "0.05")
        self.daemons.cannot_land("a.cbf")
        for listener in (client, everything):
            wait_until("a.cbf is told", lambda: any("a.cbf" in short for short in listener.shorts()))
        self.daemons.stop("ppu")
        self.daemons.cannot_land("b.cbf")
        self.daemons.start("ppu")
        for listener in (client, everything):
            wait_until("b.cbf is told", lambda: any("b.cbf" in short for short in listener.shorts()))
            self.assertIsNone(listener.raised)
        codes = {code for code, _, _ in client.heard}
        self.assertEqual(codes, {DAbstractMessageClient.COPY_ERROR})
        self.assertIn(DAbstractMessageClient.LAND_ERROR, {code for code, _, _ in everything.heard})

    def test_what_processMessage_raises_comes_out(self):
        class Careless(Recorder):
            def processMessage(self, errcode, shortmessage, longmessage):
                raise DClientSocket.DSocketNoConnect("of another connection")

        client = Careless(self.daemons.message_port, timeout=0.05)
        self.daemons.cannot_land("a.cbf")
        self.daemons.start("detector")
        client.thread.join(PATIENCE)
        self.assertEqual(str(client.raised), "of another connection")

    def test_images_as_they_become_visible_and_are_stored(self):
        place = {"host": "127.0.0.1", "port": self.daemons.message_port, "reconnect": 0.05}
        images, copies = ppu_uringd.visible(**place), ppu_uringd.stored(**place)
        images.connect()
        copies.connect()
        self.daemons.start("detector")
        names = [b"a.cbf", b"b\n\xff.cbf"]
        for name in names:
            self.daemons.write(os.fsdecode(name), name)
        visible, stored = [], []
        for name in names:
            visible.append(next(images))
            with open(visible[-1].path, "rb") as image:
                self.assertIn(image.read(), names)
            stored.append(next(copies))
        self.assertEqual({os.fsencode(os.path.basename(event.path)) for event in visible}, set(names))
        for event, copy in zip(visible, sorted(stored, key=lambda copy: copy.version)):
            self.assertEqual((event.kind, event.detector, event.storage), ("visible", "1MF", None))
            self.assertEqual((event.uid, event.gid, event.size), (UID, GID, os.path.getsize(event.path)))
            self.assertEqual((copy.kind, copy.storage, copy.hash), ("stored", "internal", event.hash))
            self.assertEqual(os.path.getsize(copy.path), copy.size)
            self.assertEqual((copy.version, copy.shift), (event.version, event.shift))
        self.daemons.stop("ppu")
        self.daemons.start("ppu")
        self.daemons.write("c.cbf")
        self.assertTrue(next(images).path.endswith("c.cbf"), "it has reconnected, and nothing comes twice")
        with ppu_uringd.visible(since=visible[0].number, **place) as again:
            self.assertEqual(next(again), visible[1])
        internal = ppu_uringd.stored(since=stored[0].number, storage="internal", shift=stored[0].shift, **place)
        with internal as again:
            event = next(again)
            self.assertEqual((event.number, event.path, event.storage), (stored[1].number, stored[1].path, "internal"))
        with self.assertRaises(ppu_uringd.Refused) as raised:
            ppu_uringd.stored(storage="nas", **place).connect()
        self.assertIn('there is no storage "nas"; there are: internal', str(raised.exception))
        with ppu_uringd.visible(since=1, **place) as all_of_them:
            gap = next(all_of_them)
            self.assertIsInstance(gap, ppu_uringd.Gap)
            self.assertEqual(next(all_of_them), visible[0])
        images.close()
        copies.close()

    def test_modern_messages(self):
        place = {"host": "127.0.0.1", "port": self.daemons.message_port}
        with ppu_uringd.messages(since=0, **place) as messages:
            first = next(messages)
        self.assertEqual((first.code, first.short, first.count), ("DETECTOR_LINK", "1MF", 1))
        with ppu_uringd.messages(since=first.number + 1_000_000, **place) as messages:
            gap, again = next(messages), next(messages)
        self.assertEqual(gap, ppu_uringd.Gap(first.number + 1_000_000, 1))
        self.assertEqual(again, first)

        messages = ppu_uringd.messages(since=first.number, reconnect=0.05, **place)
        heard = []
        thread = threading.Thread(target=lambda: heard.extend(messages), daemon=True)
        thread.start()
        self.daemons.cannot_land("a.cbf")
        self.daemons.start("detector")
        wait_until("it is heard", lambda: [m for m in heard if m.code == "LAND_ERROR"])
        self.daemons.stop("ppu")
        self.daemons.start("ppu")
        wait_until("the next daemon is heard", lambda: heard[-1].number >= first.number + 1000)
        messages.close()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
