"""Lines that come as things happen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Dict, Generic, Iterator, Optional, Tuple, Type, TypeVar, Union

from ._wire import MESSAGE_PORT, Connection, Error, NoConnection, Port, port_number

T = TypeVar("T")


@dataclass(frozen=True)
class Gap:
    """Things with a number between `after` and `before` may have been forgotten before they were asked for. Where `after` is
    greater, the daemon's journal was lost or replaced, and numbers began anew."""

    after: int
    before: int


class Subscription(Generic[T]):
    """An iterator over what happens, and a context manager.

    A broken connection raises `NoConnection` where `reconnect` is 0; otherwise it is tried again every `reconnect` seconds, and
    goes on after the last number that was heard: nothing is missed, or a `Gap` says so.
    """

    def __init__(
        self,
        parse: Callable[[Dict[str, Any]], Optional[Tuple[int, T]]],
        request: Dict[str, Any],
        *,
        since: Optional[int],
        host: Optional[str],
        port: Port,
        timeout: Optional[float],
        reconnect: float,
    ) -> None:
        self._parse = parse
        self._request = request
        self._host = host
        self._port = port_number(port, MESSAGE_PORT)
        self._timeout = timeout
        self._reconnect = reconnect
        self._connection: Optional[Connection] = None
        self._closed = False
        #: The number of what was heard last: pass it as `since` to go on from there.
        self.last: Optional[int] = since

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def connect(self) -> None:
        """Subscribes, if that is not done yet: from the return on nothing is missed. Iterating does it, too."""
        if self._connection is not None:
            return
        connection = Connection(self._host, self._port, self._timeout)
        try:
            connection.say(since=self.last, **self._request)
            said = connection.hear()
            if "subscribed" not in said:
                raise Error("what answers at %s is no message port: is it the port of the status?" % connection.place)
            connection.wait_for_ever()
        except BaseException:
            connection.close()
            raise
        if self.last is None:
            self.last = said["subscribed"]["last"]
        self._connection = connection

    def close(self) -> None:
        """Ends the subscription; also from another thread, whose iteration ends then."""
        self._closed = True
        self._drop()

    def __enter__(self) -> Subscription[T]:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Union[T, Gap]]:
        return self

    def __next__(self) -> Union[T, Gap]:
        while not self._closed:
            try:
                self.connect()
                connection = self._connection
                if connection is None:
                    continue
                said = connection.hear()
            except (Error, OSError, ValueError) as error:
                # The last two: the connection was closed by another thread in this moment.
                self._drop()
                if self._closed:
                    break
                if not self._reconnect or not isinstance(error, NoConnection):
                    raise
                time.sleep(self._reconnect)
                continue
            if "gap" in said:
                gap = Gap(said["gap"]["after"], said["gap"]["before"])
                self.last = gap.before - 1
                return gap
            if "passed" in said:
                # Nothing of what is wanted; a later question begins here.
                self.last = said["passed"]["number"]
                continue
            found = self._parse(said)
            # Lines of a kind that a newer daemon may say are passed over.
            if found is not None:
                self.last = found[0]
                return found[1]
        raise StopIteration

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
