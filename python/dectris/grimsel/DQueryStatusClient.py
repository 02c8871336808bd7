"""See `ppu_uringd.DQueryStatusClient`."""

from ppu_uringd.DQueryStatusClient import *  # noqa: F401,F403
