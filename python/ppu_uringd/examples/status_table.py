"""Prints what is pending, copied and failed, per shift and storage, every 10 seconds."""

from __future__ import annotations

import time

from ..DClientSocket import DSocketNoConnect
from . import _table


def main() -> None:
    parser = _table.arguments(__doc__ or "")
    parser.add_argument("--users", type=int, default=-1, help="the newest so many shifts; all unless given")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS")
    given = parser.parse_args()
    client = _table.client_of(given)
    try:
        while True:
            try:
                print("\n".join(_table.lines(client.queryStatus(given.users))))
            except DSocketNoConnect as error:
                print(error)
            print(flush=True)
            time.sleep(given.every)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
