"""Lines of JSON on TCP: PROTOCOL.md, "Ports for programs"."""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, Optional, Union

VERSION = 1
STATUS_PORT = 47199
MESSAGE_PORT = 47198
DEFAULT_HOST = "localhost"
#: Longest line that is taken from a daemon; it bounds the memory.
MAX_LINE_BYTES = 256 << 20

Port = Union[int, str, None]


class Error(Exception):
    """What goes wrong between a program and the daemon."""


class NoConnection(Error, ConnectionError):
    """The daemon is not reached, or the connection to it has ended."""


class Refused(Error):
    """The daemon says why it does not answer."""


def port_number(port: Port, default: int) -> int:
    """A port may be given as a number, as its digits, or not at all."""
    if port is None or port == "":
        return default
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError("%r is no port: it is a number from 1 to 65535" % (port,))
    return number


class Connection:
    """A connection to one of the daemon's ports."""

    def __init__(self, host: Optional[str], port: int, timeout: Optional[float]) -> None:
        self.place = "%s:%d" % (host or DEFAULT_HOST, port)
        try:
            self._socket = socket.create_connection((host or DEFAULT_HOST, port), timeout)
        except OSError as error:
            raise NoConnection(
                "no daemon answers at %s: %s. Is ppu-uringd running there, and does its [interfaces] open this port to this machine?"
                % (self.place, error)
            ) from error
        # A daemon whose machine has vanished says no goodbye.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._lines = self._socket.makefile("rb")

    def say(self, **request: Any) -> None:
        """Asks; keys with None are left out."""
        asked: Dict[str, Any] = {"v": VERSION}
        asked.update((key, value) for key, value in request.items() if value is not None)
        try:
            self._socket.sendall(json.dumps(asked).encode("ascii") + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # Turned away; what the daemon said before tells why.
        except OSError as error:
            raise NoConnection("cannot ask the daemon at %s: %s" % (self.place, error)) from error

    def hear(self) -> Dict[str, Any]:
        """The next line, without the version; raises where there is none."""
        try:
            line = self._lines.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise NoConnection("the connection to the daemon at %s broke: %s" % (self.place, error)) from error
        if not line.endswith(b"\n"):
            raise NoConnection("the daemon at %s has ended the connection" % self.place)
        try:
            said = json.loads(line)
        except ValueError as error:
            raise Error("what answers at %s is no ppu-uringd: %s" % (self.place, error)) from error
        if not isinstance(said, dict) or said.pop("v", None) != VERSION:
            raise Error("what answers at %s is no ppu-uringd that speaks version %d" % (self.place, VERSION))
        if "error" in said:
            raise Refused("the daemon at %s says: %s" % (self.place, said["error"]))
        return said

    def wait_for_ever(self) -> None:
        """From now on a line may take any time."""
        self._socket.settimeout(None)

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # It is closed already.
        self._lines.close()
        self._socket.close()
