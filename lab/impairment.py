"""What happens to each datagram on the mirror path: decided here, by a seeded generator; the relay carries it out."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Impairment:
    """Shares in percent of the datagrams; `delay` is how late, in seconds at most, a reordered one or a copy comes."""

    drop: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.05
    seed: int = 1


class Fates:
    """One decision per datagram."""

    def __init__(self, impairment: Impairment) -> None:
        self._chance = random.Random(impairment.seed)
        self._delay = impairment.delay
        self._drop = impairment.drop / 100
        self._reorder = self._drop + impairment.reorder / 100
        self._duplicate = self._reorder + impairment.duplicate / 100
        self.dropped = self.reordered = self.duplicated = 0

    def decide(self) -> tuple[float, ...]:
        """The delay of each copy to send; none for a lost datagram, 0.0 for one that just passes."""
        chance = self._chance.random()
        if chance < self._drop:
            self.dropped += 1
            return ()
        if chance < self._reorder:
            self.reordered += 1
            return (self._chance.uniform(0.0, self._delay),)
        if chance < self._duplicate:
            self.duplicated += 1
            return (0.0, self._chance.choice((0.0, self._chance.uniform(0.0, self._delay))))
        return (0.0,)
