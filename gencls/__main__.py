"""``python -m gencls`` is the command ``gencls``."""

import sys

from gencls.cli import main

if __name__ == "__main__":
    sys.exit(main())
