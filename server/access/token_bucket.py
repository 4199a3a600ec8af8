"""A budget a minute that refills evenly, so that "when again" has an exact answer."""


class TokenBucket:
    """Full at first; fills by `per_minute` a minute up to `per_minute`. `now` is monotonic seconds everywhere."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def seconds_until(self, amount: float, now: float) -> float:
        """How long until `amount` is there; 0 when it is, infinity when it can never be."""
        if amount > self.per_minute:
            return float("inf")
        return max(0.0, amount - self._filled(now)) * 60.0 / self.per_minute

    def take(self, amount: float, now: float) -> None:
        """Spend `amount`, or put back a negative one. The level may sink below 0: a debt that is waited off."""
        self._level = min(self.per_minute, self._filled(now) - amount)

    def remaining(self, now: float) -> int:
        """Whole units that are there, at least 0."""
        return max(0, int(self._filled(now) + 1e-6))

    def seconds_until_full(self, now: float) -> float:
        """How long until nothing of it is spent."""
        return self.seconds_until(self.per_minute, now)

    def _filled(self, now: float) -> float:
        self._level = min(self.per_minute, self._level + max(0.0, now - self._at) * self.per_minute / 60.0)
        self._at = max(self._at, now)
        return self._level
