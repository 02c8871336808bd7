"""HiDRA (DESY) as a contender: its datamanager on the detector's side, its datareceiver on the other, ZeroMQ between them."""

import json
import os
import signal
import subprocess
import time

from arena import cpu_seconds, remove, wait_until
from contenders import IDLE_SECONDS
from figures import HIDRA

SENDER, RECEIVER = "src/hidra/sender/datamanager.py", "src/hidra/receiver/datareceiver.py"
# Where its modules look for each other.
MODULES = ("src/api/python", "src/hidra/sender", "src/hidra/sender/eventdetectors", "src/hidra/sender/datafetchers", "src/hidra/receiver")
PACKAGES = ("zmq", "yaml", "future", "setproctitle", "ldap3", "inotifyx")
PORT = 50100
# Two of its parts pass every debug message on to another process, verbose or not, and that takes as much time as its work does. No key turns it
# off; Python runs this before anything of it.
QUIET = "import logging\nlogging.disable(logging.INFO)\n"
# Its start-up waits seconds here and there, and so does its end.
PATIENCE_SECONDS = 30


class Hidra:
    """From a checkout, with the Python that `venv` in it has, else the one that runs this."""

    name = HIDRA

    def __init__(self, arena, checkout):
        self.arena, self.checkout, self.processes = arena, checkout, {}
        self.here = os.path.join(arena.work, "hidra")

    def start(self):
        """Returns when files have landed."""
        if os.path.exists(self.here):
            remove(self.here)
        os.mkdir(self.here)
        with open(os.path.join(self.here, "sitecustomize.py"), "w") as file:
            file.write(QUIET)
        source, target = (os.path.join(root, "live") for root in (self.arena.watched, self.arena.target))
        for directory in (source, target):
            os.makedirs(directory)
        self._spawn("receiver", RECEIVER, receiver_config(self.here, self.arena.target))
        self._spawn("sender", SENDER, sender_config(self.here, self.arena.watched))
        # It does not send what was there before it watched: so one more each time, until one arrives, and then all that it has seen.
        wait_until(lambda: self._alive() and probe(source) and os.listdir(target), PATIENCE_SECONDS, f"{self.name} sends a file", every=0.2)
        newest = os.path.join(target, max(os.listdir(source)))
        wait_until(lambda: os.path.exists(newest), PATIENCE_SECONDS, f"{self.name} sends all files")
        time.sleep(IDLE_SECONDS)

    def stop(self):
        """Asks first: else it leaves semaphores behind."""
        for process in self.processes.values():
            process.terminate()
        try:
            for process in self.processes.values():
                wait_until(lambda: process.poll() is not None and not members(process.pid), PATIENCE_SECONDS, f"{self.name} ends")
        finally:
            for process in self.processes.values():
                if members(process.pid):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self.processes = {}
            remove(os.path.join(self.arena.watched, "live"))

    def cpu(self):
        return [sum(map(cpu_seconds, members(self.processes[side].pid))) for side in ("sender", "receiver")]

    def _spawn(self, side, program, config):
        path = os.path.join(self.here, f"{side}.yaml")
        with open(path, "w") as file:
            # JSON is YAML.
            json.dump(config, file, indent=1)
        with open(os.path.join(self.here, f"{side}.out"), "wb") as out:
            command = [python(self.checkout), os.path.join(self.checkout, program), "--config_file", path]
            # A process group of its own: it consists of several.
            options = {"env": environment(self.checkout, self.here), "start_new_session": True}
            self.processes[side] = subprocess.Popen(command, stdout=out, stderr=out, **options)

    def _alive(self):
        for side, process in self.processes.items():
            if process.poll() is not None:
                with open(os.path.join(self.here, f"{side}.out"), errors="replace") as out:
                    raise RuntimeError(f"{self.name}'s {side} ended ({process.returncode}):\n{out.read()[-2000:]}")
        return True


def sender_config(here, watched):
    """Sends what is closed and leaves it where it is: nothing is kept, removed or confirmed. The number of streams and the size of chunks are
    the quickest of what was tried (bench/README.md)."""
    events = {
        "monitored_dir": watched, "fix_subdirs": ["live"], "create_fix_subdirs": False, "monitored_events": {"IN_CLOSE_WRITE": [""]},
        "event_timeout": 1, "history_size": 0, "use_cleanup": False,
    }  # fmt: skip
    fetcher = {
        "type": "file_fetcher", "file_fetcher": {"fix_subdirs": ["live"]}, "use_data_stream": True, "data_stream_targets": [["127.0.0.1", PORT]],
        "number_of_streams": 1, "chunksize": 10 << 20, "remove_data": False, "store_data": False,
    }  # fmt: skip
    return {
        "general": general(here, "sender") | {"ext_ip": "127.0.0.1"},
        "eventdetector": {"type": "inotifyx_events", "inotifyx_events": events},
        "datafetcher": fetcher,
    }


def receiver_config(here, target):
    receiver = {"target_dir": target, "data_stream_ip": "127.0.0.1", "data_stream_port": PORT}
    return {"general": general(here, "receiver") | {"dirs_not_to_create": []}, "datareceiver": receiver}


def general(here, side):
    """Anybody may connect, so that nobody is asked who that is."""
    return {"log_path": here, "log_name": f"{side}.log", "procname": f"hidra-{side}", "whitelist": None, "ldapuri": "127.0.0.1:1"}


def lacks(checkout):
    """What keeps it from running, if anything."""
    missing = [path for path in (SENDER, RECEIVER) if not os.path.exists(os.path.join(checkout, path))]
    if missing:
        return f"{checkout} is no checkout of HiDRA: no {missing[0]}"
    check = "import importlib.util as u, sys; print(*(name for name in sys.argv[1:] if not u.find_spec(name)))"
    found = subprocess.run([python(checkout), "-c", check, *PACKAGES], capture_output=True, text=True, check=True)
    return f"{python(checkout)} lacks {', '.join(found.stdout.split())}" if found.stdout.strip() else None


def python(checkout):
    own = os.path.join(checkout, "venv/bin/python")
    return own if os.path.exists(own) else "python3"


def environment(checkout, here):
    """Its sockets go to the temporary directory."""
    modules = [here, *(os.path.join(checkout, path) for path in MODULES)]
    return os.environ | {"PYTHONPATH": ":".join(modules), "PYTHONWARNINGS": "ignore", "TMPDIR": here}


def probe(directory):
    path = os.path.join(directory, f"probe_{len(os.listdir(directory)):06d}.cbf")
    with open(path, "wb") as file:
        file.write(os.urandom(100_000))
    return path


def members(group):
    """The living processes of a process group."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                state, of = state_and_group(stat.read())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if of == group and state not in "ZX":
            found.append(int(entry))
    return found


def state_and_group(stat):
    """Of proc(5)'s stat; a name may have brackets and blanks."""
    fields = stat.rsplit(")", 1)[1].split()
    return fields[0], int(fields[2])
