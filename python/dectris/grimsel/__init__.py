"""The predecessor's names for the clients of ppu-uringd: scripts that import them work as they are."""
