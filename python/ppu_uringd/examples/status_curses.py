"""Shows what is pending, copied and failed, per shift and storage, and keeps it up to date. Ends with q."""

from __future__ import annotations

import curses
import locale
import time
from typing import TYPE_CHECKING, List

from .._wire import Error
from ..DQueryStatusClient import DQueryStatusClient
from . import _table

if TYPE_CHECKING:
    from curses import window as Window


def main() -> None:
    parser = _table.arguments(__doc__ or "")
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS")
    given = parser.parse_args()
    locale.setlocale(locale.LC_ALL, "")
    try:
        curses.wrapper(show, _table.client_of(given), given.every)
    except KeyboardInterrupt:
        pass


def show(screen: "Window", client: DQueryStatusClient, every: float) -> None:
    try:
        curses.curs_set(0)
    except curses.error:
        pass  # This terminal always shows its cursor.
    screen.timeout(int(every * 1000))
    while True:
        title = "ppu-uringd at %s:%d   %s   q: quit" % (client.host(), client.port(), time.strftime("%H:%M:%S"))
        try:
            table = _table.lines(client.queryStatus())
        except Error as error:
            table = [str(error)]
        draw(screen, [title, ""] + table[:1] + table[1:][::-1])
        if screen.getch() in (ord("q"), ord("Q"), 27):
            return


def draw(screen: "Window", lines: List[str]) -> None:
    """The newest shift is on top, so that a small terminal shows it."""
    screen.erase()
    height, width = screen.getmaxyx()
    for y, line in enumerate(lines[:height]):
        try:
            screen.addnstr(y, 0, line, max(width - 1, 0), curses.A_BOLD if y in (0, 2) else curses.A_NORMAL)
        except curses.error:
            pass  # It became smaller just now.
    screen.refresh()


if __name__ == "__main__":
    main()
