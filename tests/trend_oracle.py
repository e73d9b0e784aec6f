"""The plain version of ``ScoreTrend`` with patience, in lists of items."""

from __future__ import annotations


def ends_of(value: list[float], count: int) -> tuple[list[int], list[int]]:
    """The ``count`` items of the largest value, and those of the least."""
    order = sorted(range(len(value)), key=lambda j: (-value[j], j))
    return order[:count], order[-count:]


class PlainTrend:
    """One observer; ``by_score`` says what the next look has to rank by."""

    def __init__(self, count: int, patience: int = 6, later: int = 3) -> None:
        self.count, self.patience, self.later = count, patience, later
        self.by_score = False
        self.rests = False
        self.turns = 0
        self.guesses: list[tuple[list[int], list[int]]] = []
        self.taken: list[list[int]] = [[], []]
        self.vain, self.record = [0, 0], [0, 0]

    def look(self, value: list[float]) -> tuple[set[int], set[int]]:
        guess = ends_of(value, self.count)
        if len(self.guesses) < 3:
            self.guesses.append(guess)
            self.taken = list(guess)
        elif self.vain[0] >= self.patience and self.vain[1] >= self.patience:
            self.turns += 1
            self.by_score = True
            self.rests = self.turns == 1
            self.vain, self.record, self.patience = [0, 0], [0, 0], self.later
        else:
            against = self.taken if self.rests else self.guesses[-1]
            self.guesses.append(guess)
            shared = [len(set(guess[end]) & set(against[end])) for end in (0, 1)]
            for end in (0, 1):
                if self.vain[end] >= self.patience:
                    continue
                if shared[end] > self.record[end]:
                    self.record[end], self.vain[end] = shared[end], 0
                    if not self.rests:
                        self.taken[end] = guess[end]
                else:
                    self.vain[end] += 1
        return set(self.taken[0]), set(self.taken[1])
