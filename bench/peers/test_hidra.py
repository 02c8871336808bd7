"""HiDRA as a contender, as far as it goes without HiDRA."""

import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import hidra


class Hidra(unittest.TestCase):
    def test_the_sender_leaves_files_where_they_are_and_sends_to_the_receiver(self):
        sender, receiver = hidra.sender_config("/here", "/source"), hidra.receiver_config("/here", "/target")
        fetcher, events = sender["datafetcher"], sender["eventdetector"]
        self.assertEqual((fetcher["remove_data"], fetcher["store_data"], fetcher["use_data_stream"]), (False, False, True))
        self.assertEqual(fetcher["data_stream_targets"], [[receiver["datareceiver"]["data_stream_ip"], receiver["datareceiver"]["data_stream_port"]]])
        self.assertEqual(list(events[events["type"]]["monitored_events"]), ["IN_CLOSE_WRITE"])
        self.assertEqual(events[events["type"]]["monitored_dir"], "/source")
        self.assertEqual(receiver["datareceiver"]["target_dir"], "/target")

    def test_the_group_is_read_behind_any_name(self):
        self.assertEqual(hidra.state_and_group("12 (a) R 7 (b)) S 1 34 34 0 -1"), ("S", 34))

    def test_members_are_the_living_of_a_group(self):
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
            self.assertEqual(hidra.members(process.pid), [process.pid])
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            self.assertEqual(hidra.members(process.pid), [])

    def test_what_is_no_checkout_is_named(self):
        with tempfile.TemporaryDirectory() as directory:
            self.assertIn("is no checkout of HiDRA: no src/hidra/sender/datamanager.py", hidra.lacks(directory))

    def test_packages_that_it_lacks_are_named(self):
        with tempfile.TemporaryDirectory() as directory:
            for path in (hidra.SENDER, hidra.RECEIVER):
                os.makedirs(os.path.dirname(os.path.join(directory, path)))
                open(os.path.join(directory, path), "w").close()
            os.makedirs(os.path.join(directory, "venv/bin"))
            os.symlink(sys.executable, os.path.join(directory, "venv/bin/python"))
            packages, hidra.PACKAGES = hidra.PACKAGES, ("json", "no_such_package")
            self.addCleanup(setattr, hidra, "PACKAGES", packages)
            self.assertEqual(hidra.lacks(directory), f"{directory}/venv/bin/python lacks no_such_package")


if __name__ == "__main__":
    unittest.main()
