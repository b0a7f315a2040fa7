"""`python -m flows …` is the console script `pixels-once …`."""

import sys

from flows.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
