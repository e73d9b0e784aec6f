from __future__ import annotations

import pytest
import torch
from trend_oracle import PlainTrend

from fedbench.defenses.score_trend import ScoreTrend


def first(table: torch.Tensor) -> torch.Tensor:
    return table[:, 0]


def table(*scores: float) -> torch.Tensor:
    return torch.tensor(scores)[:, None]


def items(chosen: torch.Tensor) -> tuple[set[int], set[int]]:
    highest, lowest = (set(each.nonzero().squeeze(1).tolist()) for each in chosen)
    return highest, lowest


def test_the_first_look_ranks_by_scores_and_the_next_by_their_change() -> None:
    trend = ScoreTrend(1)
    assert items(trend.look(table(3, 1, 2, 0), first)) == ({0}, {3})
    assert items(trend.look(table(3, 5, 1, 0), first)) == ({1}, {2})
    # Equal changes are in order of the items.
    assert items(trend.look(table(4, 6, 2, 1), first)) == ({0}, {3})


def test_a_guess_is_taken_when_it_shares_more_with_the_one_before_than_ever() -> None:
    """Three items at either end of ten; every look is told as a change."""
    trend, now = ScoreTrend(3, patience=2, later=1), torch.zeros(10)

    def look(highest: list[int]) -> set[int]:
        change = torch.zeros(10)
        change[highest] = 1
        change[-1] = -1
        now.add_(change)
        return items(trend.look(now[:, None].clone(), first))[0]

    for guess in ([0, 1, 2], [0, 1, 3], [0, 4, 5]):
        assert look(guess) == set(guess)
    assert look([0, 4, 6]) == {0, 4, 6}  # two shared
    assert look([0, 4, 7]) == {0, 4, 6}  # two again: in vain
    assert look([0, 4, 7]) == {0, 4, 7}  # three
    assert not trend.by_score


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("patience", "later"), [(6, 3), (2, 1)])
def test_it_is_the_plain_loop(seed: int, patience: int, later: int) -> None:
    """Scores settle, and their changes with them."""
    g = torch.Generator().manual_seed(seed)
    trend, plain = ScoreTrend(4, patience=patience, later=later), PlainTrend(4, patience, later)
    goal, before = torch.randn(30, generator=g), None
    turned, changed = 0, 0
    for step in range(70):
        scores = (1 - 0.9**step) * goal + 0.3 * torch.randn(30, generator=g) * 0.93**step
        value = scores if before is None or plain.by_score else scores - before
        before = scores
        old = plain.taken[:]
        expected = plain.look(value.tolist())
        assert items(trend.look(scores[:, None], first)) == expected
        assert trend.by_score == plain.by_score
        turned = plain.turns
        changed += step > 3 and old != plain.taken
    assert turned >= 2
    assert changed >= 2


def test_a_majority_without_more_in_common_turns_it_to_scores() -> None:
    trend = ScoreTrend(1, switch="majority", memory=2)
    looks = [table(0, 0, 0, 0), table(1, 0, 0, 0), table(2, 0, 0, 0), table(3, 0, 0, 0), table(4, 9, 0, 0)]
    # With item 3 at the low end throughout, guesses share 2, 2, 2 items: the second and third time no more than before.
    for each in looks[:4]:
        assert items(trend.look(each, first)) == ({0}, {3})
    assert trend.by_score
    assert items(trend.look(looks[4], first)) == ({1}, {3})
    assert items(trend.look(table(10, 9, 0, 0), first)) == ({0}, {3})


def test_an_observer_of_scores_alone_never_looks_back() -> None:
    trend = ScoreTrend(1, by_score=True)
    assert items(trend.look(table(3, 1, 2, 0), first)) == ({0}, {3})
    assert items(trend.look(table(3, 2.5, 2, 0), first)) == ({0}, {3})
