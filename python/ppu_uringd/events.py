"""What happens to images: they become visible on the PPU's ramdisk, and are stored."""

from __future__ import annotations

import base64
import functools
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Dict, Optional, Tuple

from ._wire import Port
from .subscription import Subscription


@dataclass(frozen=True)
class FileEvent:
    """One version of an image."""

    #: "visible" or "stored".
    kind: str
    #: Grows from event to event of a kind, also over restarts; not without gaps.
    number: int
    #: The version's number, the same when it is visible and when it is stored.
    version: int
    #: Where it is, on the PPU. Names that are no text have surrogates, as everywhere in Python: open(path) works.
    path: str
    detector: str
    #: Of a stored one.
    storage: Optional[str]
    #: When the shift began that it belongs to.
    shift: datetime
    uid: int
    gid: int
    size: int
    #: xxh3-128 of its content, 32 hexadecimal digits.
    hash: str
    #: As on the detector.
    mtime_ns: int
    #: When it happened.
    time: datetime


def _subscribe(
    kind: str,
    *,
    since: Optional[int] = None,
    detector: Optional[str] = None,
    shift: Optional[datetime] = None,
    storage: Optional[str] = None,
    host: Optional[str] = None,
    port: Port = None,
    timeout: Optional[float] = 10.0,
    reconnect: float = 0,
) -> Subscription[FileEvent]:
    def parse(said: Dict[str, Any]) -> Optional[Tuple[int, FileEvent]]:
        event = said.get(kind)
        return None if event is None else (event["number"], _event(kind, event))

    request: Dict[str, Any] = {"want": kind, "detector": detector, "storage": storage}
    if shift is not None:
        request["shift_ms"] = round(shift.timestamp() * 1000)
    return Subscription(
        parse, request, since=since, host=host, port=port, timeout=timeout, reconnect=reconnect
    )


visible = functools.partial(_subscribe, "visible")
visible.__doc__ = """Images as they become visible on the PPU's ramdisk, complete and verified; first those that are remembered with a
number greater than `since`. `detector` and `shift` (when it began, as in an event) select. `timeout` is for connecting; `reconnect`: see
`Subscription`."""

stored = functools.partial(_subscribe, "stored")
stored.__doc__ = """Images as they become durable on a storage, once for each storage, or once on the `storage` that is named; otherwise as
`visible`."""


def _event(kind: str, said: Dict[str, Any]) -> FileEvent:
    exact = said.get("path_base64")
    return FileEvent(
        kind=kind,
        number=said["number"],
        version=said["version"],
        path=said["path"] if exact is None else os.fsdecode(base64.b64decode(exact)),
        detector=said["detector"],
        storage=said.get("storage"),
        shift=_time(said["shift_ms"]),
        uid=said["uid"],
        gid=said["gid"],
        size=said["size"],
        hash=said["hash"],
        mtime_ns=said["mtime_ns"],
        time=_time(said["at_ms"]),
    )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, timezone.utc)
