"""Examples: `python -m ppu_uringd.examples.status_table`, `.status_curses`, `.message_callbacks`."""
