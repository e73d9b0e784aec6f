from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal

import pytest
import torch

from fedbench.data import load_split
from fedbench.errors import DataError, Diverged, UserError
from fedbench.evaluation import evaluator as module
from fedbench.evaluation.displacement import counted, shown_to
from fedbench.evaluation.evaluator import EvaluationSettings, Evaluator
from fedbench.models import MODELS, PublicParams
from fedbench.models.mf import MatrixFactorization

CPU = torch.device("cpu")
Pairs = list[tuple[int, int]]
Part = Literal["train", "train+test"]
PARTS: tuple[Part, Part] = ("train", "train+test")


def evaluator(
    shape: tuple[int, int],
    train: Pairs,
    test: Pairs,
    targets: list[int],
    users: list[int] | None = None,
    settings: EvaluationSettings | None = None,
) -> Evaluator:
    columns = [torch.tensor([pair[c] for pair in part], dtype=torch.int64) for part in (train, test) for c in (0, 1)]
    return Evaluator(
        num_users=shape[0],
        num_items=shape[1],
        train_user=columns[0],
        train_item=columns[1],
        test_user=columns[2],
        test_item=columns[3],
        targets=torch.tensor(targets),
        evaluated_users=torch.tensor(range(shape[0]) if users is None else users),
        settings=settings or EvaluationSettings(),
        device=CPU,
    )


class Table(MatrixFactorization):
    """The embedding of a user holds the scores themselves."""

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        return users.clone()


def evaluate(evaluator: Evaluator, scores: torch.Tensor) -> dict[str, float]:
    """The metrics of scores [N, M]."""
    model = Table(Table.Params(embedding_size=scores.shape[1]))
    return evaluator(model, PublicParams(torch.eye(scores.shape[1]), {}), scores)


def brute_force(
    scores: list[list[float]],
    train: Pairs,
    test: Pairs,
    targets: list[int],
    users: list[int],
    settings: EvaluationSettings,
) -> dict[str, float]:
    """The definitions, one user and one item at a time."""
    items = range(len(scores[0]))
    seen = {u: {i for v, i in train if v == u} for u in users}
    held = {u: {i for v, i in test if v == u} for u in users}

    def part(u: int, which: Part) -> set[int]:
        return seen[u] | held[u] if which == "train+test" else seen[u]

    def rank(u: int, item: int, excluded: set[int]) -> int:
        return sum(scores[u][j] >= scores[u][item] for j in items if j != item and j not in excluded)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    out: dict[str, float] = {}
    for k in (5, 10, 20, 30):
        shares = []
        for t in targets:
            eligible = [u for u in users if t not in part(u, settings.er_eligible)]
            exposed = [u for u in eligible if rank(u, t, part(u, settings.er_mask)) < k]
            shares.append(len(exposed) / len(eligible if settings.er_denominator == "eligible" else users))
        out[f"er_{k}"] = mean(shares)
    tested = [u for u in users if held[u]]
    if all(len(held[u]) == 1 for u in tested):
        for k in (5, 10, 20):
            values: dict[str, list[float]] = {"hr": [], "ndcg": [], "hr_full": [], "ndcg_full": []}
            for u in tested:
                (item,) = held[u]
                above, pool = rank(u, item, seen[u]), len(set(items) - seen[u] - held[u])
                n = min(settings.num_negatives, pool)
                total = math.comb(pool, n)
                chances = [
                    float(Fraction(math.comb(above, x) * math.comb(pool - above, n - x), total)) if x <= n else 0.0
                    for x in range(k)
                ]
                values["hr"].append(sum(chances))
                values["ndcg"].append(sum(chance / math.log2(2 + x) for x, chance in enumerate(chances)))
                values["hr_full"].append(float(above < k))
                values["ndcg_full"].append(1 / math.log2(2 + above) if above < k else 0.0)
            out |= {f"{name}_{k}": mean(each) for name, each in values.items()}
        return out
    for k in (5, 10, 20):
        values = {"recall": [], "precision": [], "ndcg_full": []}
        for u in tested:
            unseen = [i for i in items if i not in seen[u]]
            best = sorted(unseen, key=lambda i: (-scores[u][i], i in held[u]))[:k]  # ties: held-out items last
            hit = [place for place, i in enumerate(best) if i in held[u]]
            ideal = sum(1 / math.log2(2 + place) for place in range(min(k, len(held[u]))))
            values["recall"].append(len(hit) / len(held[u]))
            values["precision"].append(len(hit) / k)
            values["ndcg_full"].append(sum(1 / math.log2(2 + place) for place in hit) / ideal)
        out |= {f"{name}_{k}": mean(each) for name, each in values.items()}
        out[f"hr_full_{k}"] = out[f"recall_{k}"]
    return out


def random_case(seed: int, several: bool, levels: int, num_items: int) -> dict[str, Any]:
    """Uneven users, some without train or test items, repeats, leaked pairs, malicious users among them."""
    g = torch.Generator().manual_seed(seed)
    n = 23
    at_most = min(40, num_items - 8)
    train: Pairs = []
    test: Pairs = []
    for user in range(n):
        shuffled = torch.randperm(num_items, generator=g).tolist()
        length = int(torch.randint(0, at_most + 1, (), generator=g))
        held = int(torch.randint(0, 8 if several else 2, (), generator=g))
        train += [(user, item) for item in shuffled[:length]]
        test += [(user, item) for item in shuffled[length : length + held]]
    if several:
        test += train[::5]
    else:
        test += [next((user, item) for user, item in train if user not in {v for v, _ in test})]
    train += train[5:9]
    order = torch.randperm(len(train), generator=g).tolist()
    return {
        "scores": torch.randint(-levels, levels + 1, (n, num_items), generator=g).float() / 4,
        "train": [train[i] for i in order],
        "test": test,
        "targets": torch.randperm(num_items, generator=g)[:3].tolist(),
        "users": sorted(torch.randperm(n, generator=g)[:19].tolist()),
    }


@pytest.mark.parametrize("kept", [True, False], ids=["positions kept", "positions made anew"])
@pytest.mark.parametrize("num_items", [16, 150])
@pytest.mark.parametrize("levels", [0, 2, 10_000], ids=["collapsed", "many ties", "few ties"])
@pytest.mark.parametrize("several", [False, True], ids=["one held-out item", "several"])
def test_agrees_with_brute_force(
    monkeypatch: pytest.MonkeyPatch, several: bool, levels: int, num_items: int, kept: bool
) -> None:
    monkeypatch.setattr(module, "FEWEST_USERS", 4)
    monkeypatch.setattr(module, "BLOCK_SCORES", {"cpu": 5 * num_items})
    monkeypatch.setattr(module, "KEPT_PAIRS", 10**6 if kept else 0)
    case = random_case(levels + num_items, several, levels, num_items)
    scores = case.pop("scores")
    for mask in PARTS:
        for eligible in PARTS:
            for denominator in ("eligible", "all"):
                settings = EvaluationSettings(mask, eligible, denominator, num_negatives=99)
                found = evaluate(evaluator(tuple(scores.shape), settings=settings, **case), scores)
                expected = brute_force(scores.tolist(), settings=settings, **case)
                assert found == pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    # Items 0 to 6. Target 6 is third among user 0's unseen items (1 and 2 are ahead) and first among user 1's.
    scores = torch.tensor(
        [
            [9.0, 8.0, 7.0, 1.0, 0.0, 0.0, 5.0],
            [9.0, 8.0, 7.0, 6.0, 5.0, 0.0, 5.5],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0],
        ]
    )
    train = [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 6)]
    test = [(0, 3), (1, 4), (2, 0)]
    found = evaluate(evaluator((3, 7), train, test, [6]), scores)
    assert found["er_5"] == 1.0  # user 2 has it already
    # Full ranking: user 0's item 3 has 1, 2, 6 ahead; user 1's item 4 has 6; user 2's item 0 ties with 1 to 5.
    assert found["hr_full_5"] == pytest.approx(2 / 3)
    assert found["ndcg_full_5"] == pytest.approx((1 / math.log2(5) + 1 / math.log2(3)) / 3)
    assert found["hr_full_10"] == 1.0
    # Fewer than 99 other items: all of them are the negatives.
    assert found["hr_5"] == found["hr_full_5"]
    assert found["ndcg_10"] == pytest.approx(found["ndcg_full_10"])


def test_names_of_the_results() -> None:
    scores = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    exposure = {f"er_{k}" for k in (5, 10, 20, 30)}
    one = evaluate(evaluator((2, 50), [(0, 1)], [(0, 2)], [3]), scores)
    assert one.keys() == exposure | {
        f"{name}_{k}" for name in ("hr", "ndcg", "hr_full", "ndcg_full") for k in (5, 10, 20)
    }
    several = evaluate(evaluator((2, 50), [(0, 1)], [(0, 2), (0, 4)], [3]), scores)
    lists = ("recall", "precision", "hr_full", "ndcg_full")
    assert several.keys() == exposure | {f"{name}_{k}" for name in lists for k in (5, 10, 20)}
    assert evaluate(evaluator((2, 50), [(0, 1)], [], [3]), scores).keys() == exposure


def test_a_collapsed_model_exposes_and_finds_nothing() -> None:
    for test in ([(0, 5)], [(0, 5), (0, 6)]):
        found = evaluate(evaluator((3, 200), [(0, 1), (1, 2)], test, [7, 8]), torch.full((3, 200), 0.25))
        assert {name for name, value in found.items() if value != 0.0 and name not in ("hr_20", "ndcg_20")} == set()
        assert found.get("hr_20", 0.0) == 0.0


def test_adjacent_scores_are_no_ties() -> None:
    # The held-out items score one step of a float above all others: they come first.
    low = torch.tensor(0.25)
    scores = low.repeat(1, 100)
    scores[0, [3, 4]] = torch.nextafter(low, torch.tensor(1.0))
    found = evaluate(evaluator((1, 100), [], [(0, 3), (0, 4)], [9]), scores)
    assert found["recall_5"] == 1.0
    assert found["ndcg_full_5"] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("test", [[(0, 5)], [(0, 5), (0, 6)]])
def test_scores_that_are_not_finite_are_never_a_result(value: float, test: Pairs) -> None:
    # A comparison with NaN is false, so a diverged model has nobody ahead of anything: it would look perfect.
    scores = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
    scores[33, 17] = value
    with pytest.raises(Diverged, match="not finite"):
        evaluate(evaluator((40, 60), [(0, 1)], test, [7]), scores)


def test_one_diverged_item_is_noticed() -> None:
    model = MatrixFactorization(MatrixFactorization.Params(embedding_size=4))
    items = torch.ones(60, 4)
    items[-1] = math.nan
    with pytest.raises(Diverged):
        evaluator((5, 60), [(0, 1)], [(0, 2)], [7])(model, PublicParams(items, {}), torch.ones(5, 4))


def test_large_scores_have_not_diverged() -> None:
    scores = torch.arange(60.0).repeat(3, 1) * 1e36
    assert evaluate(evaluator((3, 60), [(0, 1)], [(0, 2)], [59]), scores)["er_5"] == 1.0


def test_a_target_that_everybody_has_is_refused() -> None:
    train = [(0, 4), (1, 4), (2, 4), (3, 5)]
    with pytest.raises(UserError, match="target item 4: every user has it already"):
        evaluator((4, 10), train, [], [5, 4], users=[0, 1, 2])
    evaluator((4, 10), train, [], [5, 4])


def test_malicious_users_do_not_count() -> None:
    scores = torch.zeros(4, 50)
    scores[:2, 7] = 1.0  # only users 0 and 1 are shown the target
    train: Pairs = [(u, 0) for u in range(4)]
    test: Pairs = [(u, 7 if u < 2 else 8) for u in range(4)]
    settings = EvaluationSettings(er_denominator="all")
    assert evaluate(evaluator((4, 50), train, test, [7], settings=settings), scores)["er_5"] == 0.5
    found = evaluate(evaluator((4, 50), train, test, [7], users=[3, 0, 2], settings=settings), scores)
    assert found["er_5"] == pytest.approx(1 / 3)
    assert found["hr_full_5"] == pytest.approx(1 / 3)


def test_embeddings_of_users_who_do_not_count_may_be_anything() -> None:
    scores = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    counted = evaluator((4, 50), [(0, 1)], [(0, 2)], [7], users=[0, 2])
    before = evaluate(counted, scores)
    scores[1] = math.nan
    assert evaluate(counted, scores) == before


def test_parameters_are_left_as_they_were() -> None:
    items, users = torch.eye(50), torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    model = MatrixFactorization(MatrixFactorization.Params(embedding_size=50))
    copy = users.clone()
    evaluator((4, 50), [(0, 1)], [(0, 2), (0, 3)], [7])(model, PublicParams(items, {}), users)
    assert torch.equal(users, copy)
    assert torch.equal(items, torch.eye(50))


class CountingModel(MatrixFactorization):
    """Notes the shape of every block of scores."""

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        scores = super().score_all(params, users)
        self.shapes.append(tuple(scores.shape))
        return scores

    shapes: list[tuple[int, ...]]


@pytest.mark.parametrize("num_items", [300, 40_000])
def test_scores_are_made_once_and_never_all_together(num_items: int) -> None:
    model = CountingModel(CountingModel.Params(embedding_size=2))
    model.shapes = []
    n = 2_000 if num_items == 300 else 70
    users, items = torch.randn(n, 2), torch.randn(num_items, 2)
    evaluator((n, num_items), [(0, 1)], [(0, 2)], [7, 8])(model, PublicParams(items, {}), users)
    assert sum(rows for rows, _ in model.shapes) == n
    assert len(model.shapes) > 1
    assert all(rows * num_items <= max(2**19, 32 * num_items) for rows, _ in model.shapes)


def test_scores_need_not_lie_in_a_row() -> None:
    class Transposed(MatrixFactorization):
        def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
            return (params.items @ users.T).T

    g = torch.Generator().manual_seed(0)
    users, items = torch.randn(9, 4, generator=g), PublicParams(torch.randn(50, 4, generator=g), {})
    for test in ([(0, 2)], [(0, 2), (0, 3)]):
        counted = evaluator((9, 50), [(0, 1), (3, 4)], test, [7])
        results = [
            counted(cls(cls.Params(embedding_size=4)), items, users) for cls in (Transposed, MatrixFactorization)
        ]
        assert results[0] == results[1]


@pytest.mark.parametrize("name", ["mf", "ncf"])
def test_every_model_agrees_with_brute_force(name: str) -> None:
    cls = MODELS.get(name)
    model = cls(cls.Params.model_validate({"init_std": 1.0}))
    g = torch.Generator().manual_seed(0)
    params, users = model.init_params(120, g), model.init_users(23, g)
    case = random_case(5, several=False, levels=1, num_items=120)
    scores = model.score_all(params, users)
    del case["scores"]
    found = evaluator((23, 120), **case)(model, params, users)
    assert found == pytest.approx(brute_force(scores.tolist(), settings=EvaluationSettings(), **case), abs=1e-12)


def test_published_target_of_ml_100k_is_counted_over_878_users() -> None:
    try:
        split = load_split("ml-100k", "published-icde24")
    except DataError as error:
        pytest.skip(str(error))
    g = torch.Generator().manual_seed(0)
    counted = Evaluator(
        num_users=split.num_users,
        num_items=split.num_items,
        train_user=torch.from_numpy(split.train.user),
        train_item=torch.from_numpy(split.train.item),
        test_user=torch.from_numpy(split.test.user),
        test_item=torch.from_numpy(split.test.item),
        targets=torch.tensor([467]),
        evaluated_users=torch.arange(split.num_users),
        settings=EvaluationSettings(),
        device=CPU,
    )
    model = MatrixFactorization(MatrixFactorization.Params())
    params, users = model.init_params(split.num_items, g), model.init_users(split.num_users, g)
    found = counted(model, params, users)
    exposed = found["er_30"] * 878
    assert round(exposed) > 0
    assert exposed == pytest.approx(round(exposed), abs=1e-9)
    assert found["hr_full_20"] * 943 == pytest.approx(round(found["hr_full_20"] * 943), abs=1e-9)
    # An untrained model places the held-out item anywhere among the 100.
    assert found["hr_10"] == pytest.approx(0.10, abs=0.03)


def test_half_of_the_ties_are_ahead() -> None:
    """Scores 5, 5, 5, 1, 9; the held-out item 0 ties with 1 and 2, one of which is in train; 4 is higher."""
    scores = torch.tensor([[5.0, 5, 5, 1, 9]])
    half = EvaluationSettings(ties="half")
    alone = evaluate(evaluator((1, 5), [(0, 3)], [(0, 0)], [4], settings=half), scores)
    # ahead: item 4, and half of items 1 and 2: rank 1 + 1 + 2 / 2 = 3
    assert alone["ndcg_full_5"] == pytest.approx(1 / math.log2(4))
    seen = evaluate(evaluator((1, 5), [(0, 1)], [(0, 0)], [3], settings=half), scores)
    assert seen["ndcg_full_5"] == pytest.approx(1 / math.log2(1 + 2.5))
    against = evaluate(evaluator((1, 5), [(0, 1)], [(0, 0)], [3]), scores)
    assert against["ndcg_full_5"] == pytest.approx(1 / math.log2(1 + 3))


def test_a_collapsed_model_is_at_chance_when_ties_count_by_half() -> None:
    flat = torch.zeros(1, 41)
    found = evaluate(evaluator((1, 41), [(0, 7)], [(0, 0)], [9], settings=EvaluationSettings(ties="half")), flat)
    assert found["hr_full_20"] == 0  # 39 competitors: rank 1 + 39 / 2 = 20.5
    fewer = torch.zeros(1, 40)
    found = evaluate(evaluator((1, 40), [(0, 7)], [(0, 0)], [9], settings=EvaluationSettings(ties="half")), fewer)
    assert found["hr_full_20"] == 1  # 38 competitors: rank 20


@pytest.mark.parametrize("ties", ["against", "half"])
def test_a_held_out_item_that_was_seen_is_ranked_or_missed(ties: Literal["against", "half"]) -> None:
    scores = torch.tensor([[9.0, 5, 4, 1, 0, 0]])
    train, test = [(0, 0), (0, 1)], [(0, 0)]
    ranked = evaluate(evaluator((1, 6), train, test, [5], settings=EvaluationSettings(ties=ties)), scores)
    assert ranked["ndcg_full_5"] == 1
    missed = EvaluationSettings(ties=ties, seen_held_out="missed")
    found = evaluate(evaluator((1, 6), train, test, [5], settings=missed), scores)
    assert found["hr_full_20"] == found["ndcg_full_20"] == 0


def test_without_targets_only_quality_is_measured() -> None:
    found = evaluate(evaluator((1, 6), [(0, 1)], [(0, 0)], []), torch.tensor([[9.0, 5, 4, 1, 0, 0]]))
    assert found["hr_full_5"] == 1
    assert not any(name.startswith("er_") for name in found)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("missed", ["ranked", "missed"])
@pytest.mark.parametrize("seed", range(4))
def test_recommending_by_popularity_is_a_model_that_scores_by_popularity(
    several: bool, missed: Literal["ranked", "missed"], seed: int
) -> None:
    case = random_case(seed, several, 3, 60)
    scores = case.pop("scores")
    shape = scores.shape
    made = evaluator(shape, **case, settings=EvaluationSettings(seen_held_out=missed))
    counts = [sum(j == item for _, j in case["train"]) for item in range(shape[1])]
    popularity = torch.tensor([1000.0 * n - item for item, n in enumerate(counts)])  # ties: the lower id
    expected = evaluate(made, popularity.expand(shape))
    found = made.by_popularity()
    assert found == pytest.approx({name: value for name, value in expected.items() if not name.startswith("er_")})


def test_what_no_model_can_get_wrong_is_known() -> None:
    train = [(0, 0), (1, 0), (1, 1), (2, 5)]
    made = evaluator((3, 12), train, [(0, 3), (1, 4)], [7])
    # 11, 10 and 11 items are ranked for the target; user 2 has no held-out item.
    assert made.decided() == {
        "er_5": 0,
        "er_10": pytest.approx(1 / 3),
        "er_20": 1,
        "er_30": 1,
        "hr_5": 0,
        "hr_10": 0.5,
        "hr_20": 1,
        "hr_full_5": 0,
        "hr_full_10": 0.5,
        "hr_full_20": 1,
    }
    worst = evaluate(made, -torch.eye(12)[torch.tensor([7, 7, 7])] - torch.eye(12)[torch.tensor([3, 4, 7])])
    for name, share in made.decided().items():
        assert (worst[name] == 1) == (share == 1)


@pytest.mark.parametrize("eligible", PARTS)
def test_places_say_whom_each_target_is_shown_to(eligible: Part) -> None:
    """One character a user: exposure follows from them; whoever does not count has a dot."""
    case = random_case(3, True, 4, 60)
    settings = EvaluationSettings(er_eligible=eligible, er_mask=eligible)
    made = evaluator((23, 60), case["train"], case["test"], case["targets"], case["users"], settings)
    assert made.target_places() is None
    found = evaluate(made, case["scores"])
    places = made.target_places()
    assert places is not None
    assert [len(each) for each in places] == [23] * len(case["targets"])
    for target, each in zip(case["targets"], places, strict=True):
        have = {u for u, item in case["train"] + case["test"] * (eligible == "train+test") if item == target}
        assert {u for u in range(23) if each[u] != "."} == set(case["users"]) - have
    for k in (5, 10, 20, 30):
        shares = [shown_to(each, k).sum() / counted(each).sum() for each in places]
        assert found[f"er_{k}"] == pytest.approx(sum(shares) / len(shares))


def test_standard_errors_are_what_samples_of_the_users_scatter_by() -> None:
    n, m, sample = 400, 60, 100
    draws = torch.Generator().manual_seed(0)
    scores = torch.randn(n, m, generator=draws)
    scores[:, 5] += 1.4
    train = [(u, (u * 7) % m) for u in range(n)]
    test = [(u, (u * 11 + 3) % m) for u in range(0, n, 2) if (u * 11 + 3) % m != (u * 7) % m]
    whole = evaluate(evaluator((n, m), train, test, [5, 9]), scores)
    found: dict[str, list[float]] = {}
    told: dict[str, list[float]] = {}
    for _ in range(400):
        users = torch.randperm(n, generator=draws)[:sample].tolist()
        measure = evaluator((n, m), train, test, [5, 9], users)
        for name, value in evaluate(measure, scores).items():
            found.setdefault(name, []).append(value)
        for name, value in measure.standard_errors(n).items():
            told.setdefault(name, []).append(value)
    assert set(told) == {"er_10", "hr_10", "hr_full_10"}
    for name, errors in told.items():
        values = torch.tensor(found[name])
        assert float(values.mean()) == pytest.approx(whole[name], abs=4 * float(values.std()) / 20)
        assert float(values.std()) == pytest.approx(sum(errors) / len(errors), rel=0.15), name
    assert measure.standard_errors(sample) == dict.fromkeys(told, 0.0), "of everybody there is no error"
    errors_of_model = measure.standard_errors(n)
    measure.by_popularity()
    assert measure.standard_errors(n) == errors_of_model, "what popularity finds is not what the model finds"


def test_two_splits_of_the_same_users_are_measured_by_scores_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    num_users, num_items = 50, 12
    monkeypatch.setitem(module.BLOCK_SCORES, "cpu", 32 * num_items)
    scores = torch.randint(0, 6, (num_users, num_items), generator=torch.Generator().manual_seed(1)).float()
    train = [(u, u % num_items) for u in range(num_users)]
    valid = [(u, (u + 1) % num_items) for u in range(num_users)]
    test = [(u, (u + 2) % num_items) for u in range(0, num_users, 2)]
    shape, half = (num_users, num_items), EvaluationSettings(ties="half", er_mask="train+test")
    parts = [
        lambda: evaluator(shape, train, valid, [], settings=half),
        lambda: evaluator(shape, train + valid, test, [3, 4], settings=half),
    ]
    alone = [evaluate(part(), scores) for part in parts]

    made = 0

    class Counted(Table):
        def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
            nonlocal made
            made += len(users)
            return super().score_all(params, users)

    model = Counted(Counted.Params(embedding_size=num_items))
    found = module.measure([part() for part in parts], model, PublicParams(torch.eye(num_items), {}), scores)
    assert found == alone
    assert made == num_users
