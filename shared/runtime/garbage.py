"""The garbage collector's hours: not while a process takes in all there is.

Its rounds look at everything that has been built since the last ones, and find next to nothing, since almost
all that lives long is needed and almost all that does not is freed without it. With some thousand objects to
take in they would hold up the event loop for a third of a second, again and again. So until all is ready a
round takes place only when little was built since the last one; all else is taken out of the rounds.
"""

from __future__ import annotations

import gc

FULL_ROUNDS_RARE = (700, 10, 100)
FEW = 20_000  # objects, which are looked at in some milliseconds


class Garbage:
    """``look`` is called now and then and when all comes to be ready, and told whether it is."""

    def __init__(self) -> None:
        self._working = self._again = False
        gc.disable()
        gc.freeze()
        gc.set_threshold(*FULL_ROUNDS_RARE)

    def look(self, ready: bool) -> None:
        if ready and not self._working:
            if self._again:
                gc.unfreeze()  # what the last beginning was made of is garbage by now
                gc.collect()
            gc.freeze()
            gc.enable()
            self._working = self._again = True
        elif not ready and self._working:
            gc.disable()
            self._working = False
        elif not ready and gc.get_count()[0] < FEW:
            gc.collect()  # it may be a long wait
        elif not ready:
            gc.freeze()
