"""The predecessor's interface to the messages.

    from dectris.grimsel import DAbstractMessageClient

    class Client(DAbstractMessageClient.DAbstractMessageClient):
        def processMessage(self, errcode, shortmessage, longmessage):
            print(longmessage)

    Client("ppu", timeout=10).connect()
"""

from __future__ import annotations

import time
from typing import Any, Dict, Optional

from . import DClientSocket
from ._wire import MESSAGE_PORT, Error
from .messages import Message, messages
from .subscription import Subscription

# The predecessor's codes.
FILLSTATE_LIMIT = 1
ALMOST_OVERFLOW = 2
DISK_OVERFLOW = 3
COPY_ERROR = 4
LINK_ERROR = 5
DEL_ERROR = 6
# Further ones: only for clients that ask for them (`setAllCodes`).
LAND_ERROR = 7
DATA_LOST = 8
FILE_REPLACED = 9
STORAGE_UNAVAILABLE = 10
DETECTOR_LINK = 11
INTEGRITY_ERROR = 12
JOURNAL_ERROR = 13
CLOCK_OFFSET = 14
PAUSED = 15
RESUMED = 16
#: One that a newer daemon has and this package does not know.
OTHER = 0

#: Names of the codes.
CODES: Dict[int, str] = {
    FILLSTATE_LIMIT: "FILLSTATE_LIMIT",
    ALMOST_OVERFLOW: "ALMOST_OVERFLOW",
    DISK_OVERFLOW: "DISK_OVERFLOW",
    COPY_ERROR: "COPY_ERROR",
    LINK_ERROR: "LINK_ERROR",
    DEL_ERROR: "DEL_ERROR",
    LAND_ERROR: "LAND_ERROR",
    DATA_LOST: "DATA_LOST",
    FILE_REPLACED: "FILE_REPLACED",
    STORAGE_UNAVAILABLE: "STORAGE_UNAVAILABLE",
    DETECTOR_LINK: "DETECTOR_LINK",
    INTEGRITY_ERROR: "INTEGRITY_ERROR",
    JOURNAL_ERROR: "JOURNAL_ERROR",
    CLOCK_OFFSET: "CLOCK_OFFSET",
    PAUSED: "PAUSED",
    RESUMED: "RESUMED",
}
_NUMBERS = {name: number for number, name in CODES.items()}

#: Seconds to connect.
_PATIENCE = 10.0


class DAbstractMessageClient(DClientSocket.DClientSocket):
    _default_port = MESSAGE_PORT
    _all_codes: bool = False
    #: The number of the last message that was processed.
    _last: Optional[int] = None

    def allCodes(self) -> bool:
        return self._all_codes

    def setAllCodes(self, all_codes: bool) -> None:
        """Whether codes are wanted that the predecessor did not have. Without them, a file that cannot land and a storage that is
        unavailable come as COPY_ERROR, so that they are not missed."""
        self._all_codes = all_codes

    def connect(self) -> None:
        """Calls `processMessage` for every message from now on. Does not return.

        Where the connection cannot be made, or breaks: raises `DClientSocket.DSocketNoConnect` if the time-out is 0, else tries again
        after so many seconds; what was told meanwhile is then processed first.
        """
        while True:
            heard = self._subscription()
            with heard:
                try:
                    heard.connect()
                    # From now on nothing is missed, also if the connection breaks before the first message.
                    self._last = heard.last
                    while True:
                        message = next(heard)
                        # Before it is processed: one that makes the program raise does not come again and again.
                        self._last = heard.last
                        if isinstance(message, Message):
                            self._process(message)
                except Error as error:
                    if heard.is_connected:
                        raise  # By processMessage.
                    if not float(self.timeout()):
                        raise DClientSocket.DSocketNoConnect(str(error)) from error
            time.sleep(float(self.timeout()))

    def processMessage(self, errcode: int, shortmessage: str, longmessage: str) -> None:
        """To be overridden. `errcode` is one of the constants of this module."""
        raise NotImplementedError("override processMessage(self, errcode, shortmessage, longmessage)")

    def _subscription(self) -> Subscription[Message]:
        return messages(
            since=self._last, old_codes=not self.allCodes(), host=self.host(), port=self.port(), timeout=_PATIENCE
        )

    def _process(self, message: Message) -> None:
        self.processMessage(_NUMBERS.get(message.code, OTHER), message.short, message.long)
