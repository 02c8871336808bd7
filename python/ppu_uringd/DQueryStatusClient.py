"""The predecessor's interface to the status.

    from dectris.grimsel import DQueryStatusClient

    for row in DQueryStatusClient.DQueryStatusClient("ppu").queryStatus(1):
        print(row["storage"], row["pending"])
"""

from __future__ import annotations

from typing import Any, Dict, List

from . import DClientSocket
from ._wire import STATUS_PORT, Error
from .status import query

#: What a row of the status has.
KEYS = ("usertime", "uid", "gid", "storage", "pending", "copied", "failed")

#: Seconds to connect, and to get an answer.
_PATIENCE = 10.0


class DQueryStatusClient(DClientSocket.DClientSocket):
    _default_port = STATUS_PORT

    def queryStatus(self, nusers: int = -1) -> List[Dict[str, Any]]:
        """The newest `nusers` shifts on every storage, oldest first; -1: all that are remembered. Each row is a dict with the keys
        usertime (the shift's start, "YYYY-MM-DD HH:MM:SS"), uid, gid, storage, pending, copied, failed.

        Raises `DClientSocket.DSocketNoConnect` where no daemon answers.
        """
        try:
            rows = query(nusers, self.host(), self.port(), _PATIENCE)
        except Error as error:
            raise DClientSocket.DSocketNoConnect(str(error)) from error
        return [{key: row[key] for key in KEYS} for row in rows]
