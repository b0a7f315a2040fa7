"""Messages to the user: on standard error, for standard output carries a command's result alone."""

import sys


def notice(text: object) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr, flush=True)
