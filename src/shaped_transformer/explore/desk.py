"""The desk: which client wants which designs, one thread of work for each, and none for those that left."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..views.parallel import cancel_when
from .state import Subject
from .work import Study, advance

PAUSE = 0.25
"""Seconds between a first picture and its refinement, in which the browser has the machine to itself."""
PATIENCE = 20.0
"""Seconds after the last request of a client, after which its work stops."""
MEMORY = 600.0
"""Seconds after the last request of a client, after which it is forgotten; a later request starts anew."""
MOST_CLIENTS = 8
"""Most clients that are remembered; the one that was silent for longest is forgotten first."""


@dataclass(frozen=True)
class Shown:
    """What a page can show of a design.

    **Attributes:**

    - `version`: a number that no other result has.
    - `study`: what is known of the design.
    - `pictures`: what the desk's function has made of it; `None` if there is nothing to see.
    """

    version: int
    study: Study
    pictures: Any = None


class Client:
    """A page in a browser: the designs that it wants to see, and what is known of them. At most one thread is its.

    **Arguments:**

    - `present`: makes the pictures of a study.
    - `number`: gives each result its version.
    """

    def __init__(self, present: Callable[[Study], Any], number: Callable[[], int]) -> None:
        self._present, self._number = present, number
        self._changed = threading.Condition()
        self._shown: dict[str, Shown] = {}
        self._latest: str | None = None
        self._generation = 0
        self._thread: threading.Thread | None = None
        self.seen = time.monotonic()

    @property
    def working(self) -> bool:
        """Whether a thread works for this client."""
        with self._changed:
            return self._thread is not None

    def want(self, subjects: Mapping[str, Subject]) -> None:
        """Say which designs are wanted. Work on others is cancelled; what is known of a design that stays is kept."""
        with self._changed:
            self.seen = time.monotonic()
            for slot, subject in subjects.items():
                old = self._shown.get(slot)
                if old is None or old.study.subject != subject:
                    self._shown[slot] = Shown(0, Study(subject))
                    self._latest = slot
                    self._generation += 1
            for slot in set(self._shown) - set(subjects):
                del self._shown[slot]
                self._generation += 1
            self._start()

    def want_networks(self, slot: str) -> None:
        """Say that real networks of a design are wanted."""
        with self._changed:
            shown = self._shown.get(slot)
            if shown is not None and not shown.study.networks:
                self._shown[slot] = replace(shown, study=replace(shown.study, networks=True, done=False))
                self._latest = slot
                self._generation += 1
                self._start()

    def newer(self, held: Mapping[str, int], seconds: float) -> dict[str, Shown]:
        """Return what a page does not show yet, and wait for it if there is nothing.

        **Arguments:**

        - `held`: the versions that the page shows.
        - `seconds`: longest time to wait. It ends earlier if other designs are wanted, or if nothing is left to do.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            generation = self._generation
            while True:
                found = {slot: s for slot, s in self._shown.items() if s.version and s.version != held.get(slot)}
                left = deadline - time.monotonic()
                if found or left <= 0 or self._thread is None or self._generation != generation:
                    return found
                self._changed.wait(left)

    def shown(self, slot: str) -> Shown | None:
        """Return what is known of a design, if it was drawn already."""
        with self._changed:
            found = self._shown.get(slot)
            return found if found is not None and found.version else None

    def leave(self) -> None:
        """Stop all work."""
        with self._changed:
            self._shown.clear()
            self._generation += 1
            self._changed.notify_all()

    def _start(self) -> None:
        """Start a thread if there is work and none, and tell all that something changed."""
        if self._thread is None and any(not s.study.done for s in self._shown.values()):
            self._thread = threading.Thread(target=self._work, name="shaped-transformer explore", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _next(self) -> tuple[int, str, Study] | None:
        """Return the generation and the design to work on: one without a picture, or the one with the fewest steps."""
        with self._changed:
            open_ = [
                (s.study.steps > 0, slot != self._latest, s.study.steps, slot)
                for slot, s in self._shown.items()
                if not s.study.done
            ]
            if not open_ or time.monotonic() - self.seen > PATIENCE:
                self._thread = None
                self._changed.notify_all()
                return None
            slot = min((key[0], key[2], key[1], key[3]) for key in open_)[3]
            return self._generation, slot, self._shown[slot].study

    def _work(self) -> None:
        """Take steps until nothing is left to do, or the client has left."""
        while (task := self._next()) is not None:
            generation, slot, study = task

            def unwanted(started: int = generation) -> bool:
                return self._generation != started or time.monotonic() - self.seen > PATIENCE

            try:
                with cancel_when(unwanted):
                    study = advance(study)
                pictures = self._present(study)
            except InterruptedError:
                continue
            except Exception as error:  # a mistake of ours must not leave a client without an answer
                study, pictures = replace(study, done=True).noted(f"This could not be drawn: {error}."), None
            with self._changed:
                if self._generation == generation:
                    self._shown[slot] = Shown(self._number(), study, pictures)
                    self._changed.notify_all()
                    if study.steps == 1 and all(s.study.steps for s in self._shown.values()):
                        self._changed.wait_for(unwanted, PAUSE)


class Desk:
    """All clients by their names.

    **Arguments:**

    - `present`: makes the pictures of a study, in the thread that drew it.
    """

    def __init__(self, present: Callable[[Study], Any] = lambda _: None) -> None:
        self._present = present
        self._count = itertools.count(1)
        self._lock = threading.Lock()
        self._clients: dict[str, Client] = {}

    def client(self, name: str) -> Client:
        """Return a client, a new one if the name is not known, after those that left are forgotten."""
        with self._lock:
            self._forget(keep=name)
            if name not in self._clients:
                self._clients[name] = Client(self._present, lambda: next(self._count))
            found = self._clients[name]
            found.seen = time.monotonic()
            return found

    @property
    def clients(self) -> dict[str, Client]:
        """The clients that are remembered."""
        with self._lock:
            return dict(self._clients)

    @property
    def working(self) -> int:
        """Number of clients for which a thread works."""
        return sum(client.working for client in self.clients.values())

    def close(self) -> None:
        """Stop all work."""
        for client in self.clients.values():
            client.leave()

    def _forget(self, keep: str) -> None:
        """Forget clients that were silent for long, and the longest silent one if there are too many."""
        silent = sorted((client.seen, name) for name, client in self._clients.items() if name != keep)
        surplus = len(silent) - (MOST_CLIENTS - 1)
        for place, (seen, name) in enumerate(silent):
            if place < surplus or time.monotonic() - seen > MEMORY:
                self._clients.pop(name).leave()
