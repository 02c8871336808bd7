"""See `ppu_uringd.examples.status_table`."""

from ppu_uringd.examples.status_table import main

if __name__ == "__main__":
    main()
