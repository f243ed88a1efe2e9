"""The garbage collector's hours: not while a process takes in all there is.

Its rounds look at everything that has been built since the last ones, and find next to nothing, since almost
all that lives long is needed and almost all that does not is freed without it. With some thousand objects to
take in they would hold up the event loop for a third of a second, again and again. So until all is ready only
little is collected; what was built by then is taken out of the rounds.
"""

from __future__ import annotations

import gc

FULL_ROUNDS_RARE = (700, 10, 100)
FEW = 20_000  # objects, which are looked at in some milliseconds


class Garbage:
    """``look`` is called now and then, and told whether all is ready."""

    def __init__(self) -> None:
        self._working = self._again = False
        gc.disable()
        gc.set_threshold(*FULL_ROUNDS_RARE)

    def look(self, ready: bool) -> None:
        if ready and not self._working:
            if self._again:
                gc.collect()  # among what was taken out of the rounds is what the beginning left behind
            gc.freeze()
            gc.enable()
            self._working, self._again = True, True
        elif not ready and self._working:
            gc.disable()
            gc.unfreeze()
            self._working = False
        elif not ready and gc.get_count()[0] < FEW:
            gc.collect(1)
