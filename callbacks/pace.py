"""How long a run has to go, without jumps: slow beginnings and validations do not count as speed."""

from __future__ import annotations


class Pace:
    """What is left of a run: its iterations at their smoothed speed, its validations as long as the last one.

    Times are seconds of one clock, whichever.

    Args:
        total: iterations of the whole run.
        validate_every: iterations between validations; the run ends with one.
    """

    WARM_UP = 3  # first iterations that tell nothing: algorithms are chosen, memory is asked for
    # What lies this far back counts half: as many iterations that those with a regulariser, of 4 or 16, are
    # averaged, and so much time that fast ones do not make the figure flicker
    HALF_LIFE, HALF_LIFE_SECONDS = 64, 120.0

    def __init__(self, total: int, validate_every: int) -> None:
        self.total, self.validate_every = total, validate_every
        self.validation: float | None = None  # seconds that one takes
        self._iterations, self._seconds = 0.0, 0.0  # both with the old ones fading
        self._seen = 0
        self._mark: float | None = None  # end of the last iteration, or of the pause after it
        self._paused: float | None = None

    def iterate(self, now: float) -> None:
        """An iteration ends."""
        if self._mark is not None:
            self._seen += 1
            if self._seen > self.WARM_UP:
                self._count(now - self._mark)
        self._mark = now

    def _count(self, took: float) -> None:
        """Let an iteration join the means over those behind."""
        half_lives = min(1 / self.HALF_LIFE, took / self.HALF_LIFE_SECONDS)
        fade = 0.5**half_lives
        self._iterations = fade * self._iterations + 1
        self._seconds = fade * self._seconds + took

    def pause(self, now: float) -> None:
        """A validation begins."""
        self._paused = now

    def resume(self, now: float) -> None:
        """Training goes on, if it was paused."""
        if self._paused is None:
            return
        self.validation = now - self._paused
        self._paused = None
        if self._mark is not None:
            self._mark += self.validation

    def expect(self, seconds: float) -> None:
        """How long a validation may take, until one has been seen."""
        self.validation = seconds

    def left(self, iteration: int, validated: bool = False) -> float | None:
        """Seconds from the end of this iteration to the end of the run; None where nothing is known yet.

        `validated` says that the validation which may follow the iteration lies behind.
        """
        if not self._iterations:
            return None
        validations = -(-self.total // self.validate_every)
        if not validated:
            ahead = validations - (iteration - 1) // self.validate_every
        elif iteration < self.total:
            ahead = validations - iteration // self.validate_every
        else:
            ahead = 0
        training = (self.total - iteration) * self._seconds / self._iterations
        return training + ahead * (self.validation or 0.0)
