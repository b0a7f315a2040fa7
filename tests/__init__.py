"""What holds for every test."""

import contextlib
import signal

from hypothesis import settings

# How long an example takes says nothing of the code on a machine with other work.
settings.register_profile("pixels-once", deadline=None)
settings.load_profile("pixels-once")

# Tests that are started in a shell's background inherit an ignored Ctrl-C, and so would the
# processes that they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)
