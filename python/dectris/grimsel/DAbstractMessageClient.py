"""See `ppu_uringd.DAbstractMessageClient`."""

from ppu_uringd.DAbstractMessageClient import *  # noqa: F401,F403
