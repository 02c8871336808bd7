"""What the daemon tells people, as it happens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Dict, Optional, Tuple

from ._wire import Port
from .subscription import Subscription


@dataclass(frozen=True)
class Message:
    #: Grows from message to message; not without gaps.
    number: int
    #: How many messages it stands for: more than 1 where it sums up.
    count: int
    time: datetime
    #: "COPY_ERROR", for example.
    code: str
    #: The thing meant: a mount point, "source:destination", a file, a detector.
    short: str
    #: For people, with what to do.
    long: str


def messages(
    *,
    since: Optional[int] = None,
    old_codes: bool = False,
    host: Optional[str] = None,
    port: Port = None,
    timeout: Optional[float] = 10.0,
    reconnect: float = 0,
) -> Subscription[Message]:
    """Messages as they happen; first those that are remembered with a number greater than `since` (0: all of them).

    `old_codes`: only the predecessor's six codes; others that matter come as COPY_ERROR.
    `timeout` is for connecting; `reconnect`: see `Subscription`.
    """
    request = {"want": "messages", "codes": "old" if old_codes else "all"}
    return Subscription(
        _message, request, since=since, host=host, port=port, timeout=timeout, reconnect=reconnect
    )


def _message(said: Dict[str, Any]) -> Optional[Tuple[int, Message]]:
    told = said.get("message")
    if told is None:
        return None
    time = datetime.fromtimestamp(told["at_ms"] / 1000, timezone.utc)
    message = Message(told["number"], told["count"], time, told["code"], told["short"], told["long"])
    return message.number, message
