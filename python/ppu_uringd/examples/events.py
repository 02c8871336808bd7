"""Does something with every image the moment that it can be read, and misses none: the number of the last one is kept in a file, so that this
program, the daemon and the machine may be restarted at any time. An image that was being processed when this program was killed comes again.

    python -m ppu_uringd.examples.events --state /var/lib/me/last --run /usr/local/bin/process-image

Copy it, and do your own work in `process`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import ppu_uringd

from . import _table


def process(image: ppu_uringd.FileEvent, command: Optional[str]) -> None:
    """One image. It is complete, and nobody will change it; it may have been evicted or purged since, if this program was away."""
    if command is None:
        print(image.number, image.path, image.size, image.hash, flush=True)
        return
    try:
        # A list, not a line for a shell: a name may have any byte.
        failed = subprocess.call([command, image.path])
    except OSError as error:
        raise SystemExit("cannot run %s: %s" % (command, error.strerror))
    if failed:
        print("%s: %s ended with %d" % (image.path, command, failed), file=sys.stderr, flush=True)


class Last:
    """The number of the last event that was dealt with, in a file."""

    def __init__(self, path: Optional[Path]) -> None:
        self._path = path

    def read(self) -> Optional[int]:
        try:
            return None if self._path is None else int(self._path.read_text())
        except FileNotFoundError:
            return None  # Begins with what is to come.
        except ValueError:
            raise SystemExit("%s has no number: is it the right file? Remove it to begin anew" % self._path)

    def write(self, number: Optional[int]) -> None:
        if self._path is None or number is None:
            return
        # In one step: a crash leaves the old number or the new one.
        new = self._path.with_name(self._path.name + ".new")
        new.write_text("%d\n" % number)
        os.replace(str(new), str(self._path))


def follow(given: argparse.Namespace) -> None:
    last = Last(given.state)
    place: Dict[str, Any] = {"host": given.host, "port": given.port, "reconnect": given.reconnect, "detector": given.detector}
    since = last.read()
    if given.storage is None:
        images = ppu_uringd.visible(since=since, **place)
    else:
        images = ppu_uringd.stored(since=since, storage=given.storage, **place)
    with images:
        if since is None:
            # From now on nothing is missed, also if this program ends before the first image.
            images.connect()
            last.write(images.last)
        for image in images:
            if isinstance(image, ppu_uringd.Gap):
                gap = "from %d to %d" % (image.after, image.before)
                print("images may have been missed, %s: see to them by hand" % gap, file=sys.stderr, flush=True)
            else:
                process(image, given.run)
            last.write(images.last)


def main(arguments: Optional[List[str]] = None) -> None:
    parser = _table.arguments(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--state", type=Path, metavar="FILE", help="where the number of the last image is kept")
    parser.add_argument("--run", metavar="PROGRAM", help="started for each image, with its path; else it is printed")
    parser.add_argument("--detector", metavar="ID", help="only images of this detector")
    parser.add_argument("--storage", metavar="ID", help="when they are stored there, not when they are visible")
    parser.add_argument("--reconnect", type=float, default=2.0, metavar="SECONDS", help="between two tries; default 2")
    try:
        follow(parser.parse_args(arguments))
    except ppu_uringd.Error as error:
        raise SystemExit(str(error))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
