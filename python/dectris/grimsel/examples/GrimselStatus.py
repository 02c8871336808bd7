"""See `ppu_uringd.examples.status_curses`."""

from ppu_uringd.examples.status_curses import main

if __name__ == "__main__":
    main()
