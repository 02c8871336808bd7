"""The status as lines of text."""

from __future__ import annotations

import argparse
from typing import Any, Dict, List

from ..DQueryStatusClient import KEYS, DQueryStatusClient


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("host", nargs="?", help="where ppu-uringd runs; this machine unless given")
    parser.add_argument("port", nargs="?", help="its port, unless it is the usual one")
    return parser


def client_of(given: argparse.Namespace) -> DQueryStatusClient:
    return DQueryStatusClient(given.host, given.port)


def lines(rows: List[Dict[str, Any]]) -> List[str]:
    cells = [list(KEYS)] + [[str(row[key]) for key in KEYS] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(KEYS))]
    texts = {"usertime", "storage"}

    def line(row: List[str]) -> str:
        padded = (
            cell.ljust(width) if key in texts else cell.rjust(width)
            for key, cell, width in zip(KEYS, row, widths)
        )
        return "  ".join(padded).rstrip()

    return [line(row) for row in cells]
