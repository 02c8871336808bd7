"""Calls a method of its own for every message code. Copy it, and do something useful in them."""

from __future__ import annotations

from typing import Optional

from .. import DAbstractMessageClient, DClientSocket
from .._wire import Port
from . import _table


class MessageClient(DAbstractMessageClient.DAbstractMessageClient):
    def __init__(self, host: Optional[str] = None, port: Port = None, timeout: float = 0) -> None:
        super().__init__(host, port, timeout)
        self._callbacks = {
            DAbstractMessageClient.FILLSTATE_LIMIT: self.fillstateLimit,
            DAbstractMessageClient.ALMOST_OVERFLOW: self.almostOverflow,
            DAbstractMessageClient.DISK_OVERFLOW: self.diskOverflow,
            DAbstractMessageClient.COPY_ERROR: self.copyError,
            DAbstractMessageClient.LINK_ERROR: self.linkError,
            DAbstractMessageClient.DEL_ERROR: self.delError,
        }

    def processMessage(self, errcode: int, shortmessage: str, longmessage: str) -> None:
        self._callbacks.get(errcode, self.other)(shortmessage, longmessage)

    def fillstateLimit(self, mountpoint: str, text: str) -> None:
        print("%s is filling up: stored images are being evicted. %s" % (mountpoint, text), flush=True)

    def almostOverflow(self, mountpoint: str, text: str) -> None:
        print("%s is nearly full. %s" % (mountpoint, text), flush=True)

    def diskOverflow(self, mountpoint: str, text: str) -> None:
        print("%s is full. %s" % (mountpoint, text), flush=True)

    def copyError(self, files: str, text: str) -> None:
        # A ':' in a name is written %3A, so this is never ambiguous.
        source, _, destination = files.partition(":")
        print("%s was not copied to %s. %s" % (source, destination, text), flush=True)

    def linkError(self, name: str, text: str) -> None:
        print("%s could not become a link. %s" % (name, text), flush=True)

    def delError(self, name: str, text: str) -> None:
        print("%s could not be removed. %s" % (name, text), flush=True)

    def other(self, short: str, text: str) -> None:
        print("%s: %s" % (short, text), flush=True)


def main() -> None:
    parser = _table.arguments(__doc__ or "")
    parser.add_argument(
        "--timeout", type=float, default=10.0, help="seconds after which a broken connection is tried again; 0: give up"
    )
    given = parser.parse_args()
    try:
        MessageClient(given.host, given.port, given.timeout).connect()
    except DClientSocket.DSocketNoConnect as error:
        raise SystemExit(str(error))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
