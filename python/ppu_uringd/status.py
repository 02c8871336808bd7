"""What is pending, copied and failed, per shift and storage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional

from ._wire import STATUS_PORT, Connection, Error, Port, port_number


@dataclass(frozen=True)
class Copies:
    """The files of one shift on one storage."""

    #: When the shift began.
    start: datetime
    #: The same as "YYYY-MM-DD HH:MM:SS" in the PPU's local time.
    usertime: str
    uid: int
    gid: int
    storage: str
    #: To be copied.
    pending: int
    #: Durable there.
    copied: int
    #: Given up for now; `ppu-uringd retry` takes them up again.
    failed: int
    #: Replaced by a newer version first.
    superseded: int
    #: Gone from the detector before they had landed.
    lost: int
    #: All of them together.
    produced: int


def status(
    shifts: int = -1, *, host: Optional[str] = None, port: Port = None, timeout: Optional[float] = 10.0
) -> List[Copies]:
    """The newest `shifts` shifts on every storage, oldest first; -1: all that are remembered."""
    return [_copies(row) for row in query(shifts, host, port, timeout)]


def query(shifts: int, host: Optional[str], port: Port, timeout: Optional[float]) -> List[Dict[str, Any]]:
    connection = Connection(host, port_number(port, STATUS_PORT), timeout)
    try:
        connection.say(nusers=int(shifts))
        said = connection.hear()
    finally:
        connection.close()
    rows = said.get("status")
    if not isinstance(rows, list):
        raise Error("what answers at %s is no status port: is it the port of messages?" % connection.place)
    return rows


def _copies(row: Dict[str, Any]) -> Copies:
    counts = {key: row[key] for key in ("pending", "copied", "failed", "superseded", "lost", "produced")}
    return Copies(
        start=datetime.fromtimestamp(row["start_ms"] / 1000, timezone.utc),
        usertime=row["usertime"],
        uid=row["uid"],
        gid=row["gid"],
        storage=row["storage"],
        **counts,
    )
