"""See `ppu_uringd.DClientSocket`."""

from ppu_uringd.DClientSocket import *  # noqa: F401,F403
