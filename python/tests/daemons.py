"""The real daemons, in temporary directories."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

BINARY = os.environ.get(
    "PPU_URINGD", str(Path(__file__).resolve().parents[2] / "target" / "debug" / "ppu-uringd")
)
#: Generous: a loaded machine with two cores.
PATIENCE = 60.0
UID = os.getuid() or 12345
GID = os.getgid() or 54321


def wait_until(what, condition):
    start = time.monotonic()
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() - start < PATIENCE, "timed out waiting until " + what
        time.sleep(0.01)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Daemons:
    """A PPU and a detector; nothing runs at first."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="ppu-uringd-python-"))
        self.status_port, self.message_port, self.detector_port = free_port(), free_port(), free_port()
        self.running = {}
        for name in ("source", "ramdisk", "storage", "ppu.state", "detector.state"):
            (self.dir / name).mkdir()
        os.chmod(str(self.dir), 0o755)
        (self.dir / "key").write_text("a key for tests\n")
        self.landing = self.dir / "ramdisk" / "d"
        (self.dir / "ppu.toml").write_text(
            f"""
state_dir = "{self.dir}/ppu.state"
ramdisk = "{self.dir}/ramdisk"
key_file = "{self.dir}/key"
uid = {UID}
gid = {GID}
# Whatever else fills this machine's disk.
fillstate_low = 0.998
fillstate_limit = 0.999
almost_overflow = 1.0
[interfaces]
status = "127.0.0.1:{self.status_port}"
messages = "127.0.0.1:{self.message_port}"
http = "off"
file_pipe = "off"
control = "{self.dir}/control.sock"
[[detector]]
id = "1MF"
address = "127.0.0.1:{self.detector_port}"
target = "{self.dir}/ramdisk/./d"
[[storage]]
id = "internal"
kind = "internal"
target = "{self.dir}/storage"
allow_root_fs = true
"""
        )
        (self.dir / "detector.toml").write_text(
            f"""
listen = "127.0.0.1:{self.detector_port}"
ramdisk = "{self.dir}/source"
key_file = "{self.dir}/key"
state_dir = "{self.dir}/detector.state"
"""
        )

    def start(self, role):
        with open(str(self.dir / (role + ".log")), "ab") as log:
            command = [BINARY, role, "--config", str(self.dir / (role + ".toml"))]
            self.running[role] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if role == "ppu":
            wait_until("the ports are open", self._answers)

    def _answers(self):
        assert self.running["ppu"].poll() is None, (self.dir / "ppu.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.message_port)).close()
            return True
        except OSError:
            return False

    def stop(self, role):
        process = self.running.pop(role)
        process.terminate()
        process.wait(PATIENCE)

    def write(self, name, content=b"an image"):
        """A file that is closed on the detector."""
        (self.dir / "source" / name).write_bytes(content)

    def cannot_land(self, name):
        """A file that a user's file stands in the way of: COPY_ERROR to an old client, LAND_ERROR to others."""
        self.landing.mkdir(exist_ok=True)
        (self.landing / name).write_bytes(b"a user's")
        self.write(name)

    def close(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        shutil.rmtree(str(self.dir))
