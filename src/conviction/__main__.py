"""`conviction`, and `python -m conviction`."""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

import conviction

# Repeated here from `cli.main`, whose import is what the handler below has to cover.
_INTERRUPTED = 130


def main() -> NoReturn:
    """The command line. While it is still being imported, Ctrl-C ends it without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    conviction.is_command = True
    from conviction.cli.main import main as command_line
    from conviction.core.device import wait_briefly

    wait_briefly()
    command_line()


def _leave(signum: int, frame: Any) -> NoReturn:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
