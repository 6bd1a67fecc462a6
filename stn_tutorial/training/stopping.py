"""Ctrl-C, and a scheduler's notice, end a run between two steps (chapter 10)."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar, Self

__all__ = ["Stopping"]


class Stopping:
    """While it is entered, the first SIGINT or SIGTERM only sets `asked`; the second one strikes.

    An interrupt may fall into the middle of a step, when some weights have moved and others have
    not: no state to save. Signals that somebody else handles are left to them, and so are all of
    them in a thread that is not the main one.
    """

    defaults: ClassVar[dict[int, Any]] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,  # a batch system's, before it takes the machine away
    }

    def __init__(self) -> None:
        self.asked = False
        self._taken: list[int] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._taken = [s for s, own in self.defaults.items() if signal.getsignal(s) == own]
            for number in self._taken:
                signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._give_back()

    def _give_back(self) -> None:
        for number in self._taken:
            signal.signal(number, self.defaults[number])
        self._taken = []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()
