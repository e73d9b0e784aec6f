from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from federations import small_federation

from fedbench.attacks.shilling import BandwagonProfiles, PopularProfiles, RandomProfiles, Shilling, by_popularity
from fedbench.errors import ThreatModelViolation, UserError
from fedbench.federation.view import AttackerView

MakeView = Callable[..., AttackerView]
ALL = [RandomProfiles, PopularProfiles, BandwagonProfiles]


def made(attack: Shilling, view: AttackerView) -> list[list[int]]:
    """Each fake user's items, in the order of the profile."""
    profiles = attack.profiles(view)
    assert profiles.client.tolist() == sorted(profiles.client.tolist())
    return [profiles.item[profiles.client == c].tolist() for c in range(view.num_malicious)]


def test_popular_profile_by_hand(make_view: MakeView) -> None:
    # Counts: item 1 and 2 tie at 9, then 4, 0, 3. Target 2: the fillers are 1 and 4.
    view = make_view(
        PopularProfiles.card,
        num_malicious=3,
        targets=(2,),
        num_items=5,
        in_round=False,
        item_popularity=torch.tensor([5, 9, 9, 1, 7]),
    )
    assert made(PopularProfiles(PopularProfiles.Params(profile_size=3)), view) == [[2, 1, 4]] * 3


def test_equally_popular_items_are_ranked_by_id() -> None:
    assert by_popularity(torch.tensor([3, 5, 3, 5, 3])).tolist() == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("targets", [(7,), (7, 0, 39)])
def test_a_profile_is_the_targets_and_distinct_fillers(
    cls: type[Shilling], targets: tuple[int, ...], make_view: MakeView
) -> None:
    view = make_view(cls.card, num_malicious=50, targets=targets, num_items=40, in_round=False)
    for items in made(cls(cls.Params(profile_size=12)), view):
        assert items[: len(targets)] == list(targets)
        assert len(items) == len(set(items)) == 12
        assert set(items) <= set(range(40))


@pytest.mark.parametrize("cls", [RandomProfiles, BandwagonProfiles])
def test_fake_users_differ_and_equal_seeds_agree(cls: type[Shilling], make_view: MakeView) -> None:
    first, again, other = (
        made(cls(cls.Params()), make_view(cls.card, num_malicious=8, num_items=200, in_round=False, seed=seed))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len({frozenset(items) for items in first}) == 8


def test_random_fillers_are_uniform_over_the_other_items(make_view: MakeView) -> None:
    view = make_view(RandomProfiles.card, num_malicious=20_000, targets=(3,), num_items=10, in_round=False)
    item = RandomProfiles(RandomProfiles.Params(profile_size=4)).profiles(view).item
    share = torch.bincount(item, minlength=10) / 20_000
    expected = torch.full((10,), 3 / 9)
    expected[3] = 1
    assert torch.allclose(share, expected, atol=0.02)  # six standard deviations


@pytest.mark.parametrize(("size", "targets", "few"), [(30, (60,), 3), (30, (0,), 3), (9, (60,), 0), (40, (0, 1, 2), 4)])
def test_bandwagon_takes_a_tenth_of_the_profile_from_the_most_popular_tenth(
    size: int, targets: tuple[int, ...], few: int, make_view: MakeView
) -> None:
    view = make_view(
        BandwagonProfiles.card,
        num_malicious=300,
        targets=targets,
        num_items=100,
        in_round=False,
        item_popularity=torch.arange(100).flip(0),  # item 0 is the most popular: the head is 0 to 9
    )
    head = set(range(10)) - set(targets)
    profiles = made(BandwagonProfiles(BandwagonProfiles.Params(profile_size=size)), view)
    drawn = [items[len(targets) : len(targets) + few] for items in profiles]
    assert all(set(items) <= head for items in drawn)
    if few:
        assert {item for items in drawn for item in items} == head
    # The rest is uniform over what is left: it reaches the head and everything else.
    rest = {item for items in profiles for item in items[len(targets) + few :]}
    assert rest == set(range(100)) - set(targets)


def test_bandwagon_takes_what_there_is_of_a_short_head(make_view: MakeView) -> None:
    popularity = torch.tensor([9, 8, 1, 1, 1, 1])
    view = make_view(
        BandwagonProfiles.card, num_malicious=4, targets=(0,), num_items=6, in_round=False, item_popularity=popularity
    )
    attack = BandwagonProfiles(BandwagonProfiles.Params(profile_size=4, popular_fraction=0.9, head=0.34))
    assert all(items[:2] == [0, 1] and len(set(items)) == 4 for items in made(attack, view))


def test_random_profiles_do_without_popularity(make_view: MakeView) -> None:
    with pytest.raises(ThreatModelViolation, match="item_popularity"):
        _ = make_view(RandomProfiles.card, in_round=False).item_popularity


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(("size", "targets"), [(2, (1, 2, 3)), (21, (1,))])
def test_an_impossible_profile_size_is_one_line(
    cls: type[Shilling], size: int, targets: tuple[int, ...], make_view: MakeView
) -> None:
    view = make_view(cls.card, targets=targets, num_items=20, in_round=False)
    with pytest.raises(UserError, match=f"profile_size = {size} must be at least the .* 20 items"):
        cls(cls.Params(profile_size=size)).profiles(view)


@pytest.mark.parametrize("cls", ALL)
def test_fake_users_train_on_their_profile_and_never_against_the_targets(cls: type[Shilling]) -> None:
    attack = cls(cls.Params(profile_size=6))
    federation = small_federation(attack=attack, num_malicious=5, clients_per_round=100)
    rows = federation.adversary.fakes.rows
    assert rows is not None
    wanted = attack.profiles(federation.adversary.view) if cls is PopularProfiles else None
    assert rows.positive.sum() == 5 * 6
    assert not bool((rows.item[rows.positive == 0] == 7).any())
    assert int((rows.item[rows.positive == 1] == 7).sum()) == 5
    if wanted is not None:
        assert sorted(rows.item[rows.positive == 1].tolist()) == sorted(wanted.item.tolist())
    before = federation.users[-5:].clone()
    federation.train_epoch()
    assert bool((federation.users[-5:] != before).any(dim=1).all())
