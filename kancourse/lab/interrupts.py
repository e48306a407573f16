"""Being asked to stop, politely: finish the step, save, then stop.

Ctrl-C and the notebook's stop button send SIGINT, a machine that is taken back sends SIGTERM. A second one is not
waited for.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def obey(self) -> None:
        """Stop now, the way the signal would have: KeyboardInterrupt, or exit with the signal's status."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


@contextmanager
def stop_requests(*, enabled: bool = True) -> Iterator[StopRequest]:
    """Collect SIGINT and SIGTERM while the block runs. Only the main thread can; elsewhere, signals act as always."""
    request = StopRequest()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        if request:  # asked twice: at once
            request.signal = number
            request.obey()
        request.signal = number

    for s in before:
        signal.signal(s, ask)
    try:
        yield request
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
