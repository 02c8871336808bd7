"""What works without a daemon: SPEC 5.4 to the letter."""

import importlib
import unittest

from dectris.grimsel import DAbstractMessageClient, DClientSocket, DQueryStatusClient

from .daemons import free_port


class Accessors(unittest.TestCase):
    def test_defaults(self):
        client = DQueryStatusClient.DQueryStatusClient()
        self.assertEqual((client.host(), client.port()), ("localhost", 47199))
        client = DAbstractMessageClient.DAbstractMessageClient()
        self.assertEqual((client.host(), client.port(), client.timeout()), ("localhost", 47198, 0))

    def test_ports_are_numbers_or_their_digits(self):
        for kind in (DQueryStatusClient.DQueryStatusClient, DAbstractMessageClient.DAbstractMessageClient):
            client = kind("ppu", "1234")
            self.assertEqual((client.host(), client.port()), ("ppu", 1234))
            client.setHost("other")
            client.setPort(99)
            self.assertEqual((client.host(), client.port()), ("other", 99))
            for wrong in ("status", 0, 65536, "-1"):
                with self.assertRaises(ValueError):
                    client.setPort(wrong)
                with self.assertRaises(ValueError):
                    kind("ppu", wrong)

    def test_timeout(self):
        client = DAbstractMessageClient.DAbstractMessageClient("ppu", 1, 5)
        self.assertEqual(client.timeout(), 5)
        client.setTimeout(0.5)
        self.assertEqual(client.timeout(), 0.5)
        with self.assertRaises(ValueError):
            client.setTimeout(-1)

    def test_a_subclass_whose_constructor_passes_ours_by(self):
        from dectris.grimsel.DAbstractMessageClient import DAbstractMessageClient

        class Documented(DAbstractMessageClient):
            def __init__(self, *arguments):
                super(DAbstractMessageClient, self).__init__(*arguments)

        class Forgetful(DAbstractMessageClient):
            def __init__(self):
                pass

        for client in (Documented(), Forgetful()):
            self.assertEqual((client.host(), client.port(), client.timeout()), ("localhost", 47198, 0))
            client.setPort("12")
            client.setTimeout(3)
            self.assertEqual((client.port(), client.timeout()), (12, 3))
        client = Documented("ppu", "12", 3)
        self.assertEqual((client.host(), client.port(), client.timeout()), ("ppu", 12, 3))

    def test_codes(self):
        codes = [
            getattr(DAbstractMessageClient, name)
            for name in (
                "FILLSTATE_LIMIT",
                "ALMOST_OVERFLOW",
                "DISK_OVERFLOW",
                "COPY_ERROR",
                "LINK_ERROR",
                "DEL_ERROR",
            )
        ]
        self.assertEqual(len(set(codes)), 6)

    def test_nobody_answers(self):
        port = free_port()
        with self.assertRaises(DClientSocket.DSocketNoConnect) as raised:
            DQueryStatusClient.DQueryStatusClient("127.0.0.1", port).queryStatus()
        self.assertIn("no daemon answers at 127.0.0.1:%d" % port, str(raised.exception))
        with self.assertRaises(DClientSocket.DSocketNoConnect):
            DAbstractMessageClient.DAbstractMessageClient("127.0.0.1", port).connect()

    def test_both_names_mean_the_same(self):
        for name in ("DClientSocket", "DQueryStatusClient", "DAbstractMessageClient"):
            ours = importlib.import_module("ppu_uringd." + name)
            theirs = importlib.import_module("dectris.grimsel." + name)
            for public in dir(theirs):
                if public.startswith("D") or public.isupper():
                    self.assertIs(getattr(ours, public), getattr(theirs, public), public)
