"""Ctrl-C and SIGTERM: the first lets the step finish, so that nothing is lost; the second ends at once."""

import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME = 1.0  # seconds within which a signal is still the first one: torchrun hands on what the terminal sends to all


class StoppedError(Exception):
    """The run ended early, as it was told to. `code` is the exit status that shells expect."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.code = 128 + number


class Stop:
    """Within the `with`, `asked` is the number of the signal that wants the run to end, 0 before.

    In a thread, where Python takes no signals, it stays 0.
    """

    def __init__(self) -> None:
        self.asked, self.when = 0, 0.0
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self.before = {each: signal.signal(each, self.ask) for each in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for each, handler in self.before.items():
            signal.signal(each, handler)

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and time.monotonic() - self.when > SAME:
            self.__exit__()
            signal.raise_signal(number)
        elif not self.asked:
            self.asked, self.when = number, time.monotonic()
            print("\nending after this step; once more ends at once", file=sys.stderr)
