"""What the predecessor's two clients have in common."""

from __future__ import annotations

from typing import Optional

from ._wire import DEFAULT_HOST, NoConnection, Port, port_number


class DSocketNoConnect(NoConnection):
    """The daemon is not reached, or the connection to it is broken."""


class DClientSocket:
    """Where the daemon is.

    Defaults live in the class: subclasses that never call a constructor, or call the one above the class they derive from
    (`super(DAbstractMessageClient, self).__init__()`), work all the same.
    """

    _default_port = 0
    _host: Optional[str] = None
    _port: Port = None
    _timeout: float = 0

    def __init__(self, host: Optional[str] = None, port: Port = None, timeout: float = 0) -> None:
        self.setHost(host)
        self.setPort(port)
        if timeout:
            self.setTimeout(timeout)

    def host(self) -> str:
        return self._host or DEFAULT_HOST

    def setHost(self, host: Optional[str]) -> None:
        """None: this machine."""
        self._host = host

    def port(self) -> int:
        return port_number(self._port, self._default_port)

    def setPort(self, port: Port) -> None:
        """A number, or its digits; None: the usual one."""
        port_number(port, self._default_port)
        self._port = port

    def timeout(self) -> float:
        return self._timeout

    def setTimeout(self, timeout: float) -> None:
        """Seconds after which a client of messages tries a broken connection again; 0: never, `connect` raises then."""
        if not float(timeout) >= 0:
            raise ValueError("%r is no time-out: it is a number of seconds, or 0" % (timeout,))
        self._timeout = timeout
