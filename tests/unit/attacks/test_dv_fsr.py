from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sasrec_oracle import noisy, outputs

from fedbench.attacks.dv_fsr import DualView, owners, repeated, substituted
from fedbench.errors import UserError
from fedbench.federation.model import Histories
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.models import PublicParams
from fedbench.models.sasrec import SelfAttentiveSequentialRecommender as Sasrec
from fedbench.scenarios.scenario import Scenario

MakeView = Callable[..., AttackerView]
M = 20


def recommender(**params: object) -> Sasrec:
    return Sasrec(Sasrec.Params.model_validate({"embedding_size": 8, "max_length": 10, "dropout": 0.0} | params))


def crafted(view: AttackerView, **params: Any) -> Updates:
    made = DualView(DualView.Params(**params))
    made.start(view)
    return made.craft(view)


def rows(updates: Updates, num_items: int = M) -> torch.Tensor:
    """float32 [m, M, d]."""
    every = updates.all_rows()
    out = torch.zeros(len(updates.clients), num_items, every.values.shape[1])
    out[every.client, every.item] = every.values
    return out


def test_both_views_by_hand(make_view: MakeView) -> None:
    """d = 2 and gains of 0: F is (2, -0.5) whatever came before, and every event is worth nothing."""
    model = recommender(embedding_size=2, blocks=1)
    fresh = model.init_params(3, torch.Generator().manual_seed(0))
    dense = {**fresh.dense, "g_last": torch.zeros(2), "b_last": torch.tensor([2.0, -0.5])}
    params = PublicParams(torch.tensor([[0.0, -1.0], [2.0, 0.0], [0.0, 3.0]]), dense)
    view = make_view(DualView.card, model, m=1, num_malicious=1, targets=(1,), num_items=3, params=params, loss="bpr",
                     own_data=Profiles(torch.tensor([0, 0]), torch.tensor([0, 1])))  # fmt: skip
    explicit = crafted(view, substitutions=0, contrast=0)
    slope = 1 / (1 + math.exp(4.0))  # F . v = 4
    expected = torch.zeros(3, 2)
    expected[1] = -slope * torch.tensor([2.0, -0.5])
    assert torch.allclose(rows(explicit, 3)[0], expected, atol=1e-6)
    assert torch.allclose(explicit.dense.stacked()["b_last"][0], torch.tensor([-2 * slope, 0.0]), atol=1e-6)
    assert explicit.weights.tolist() == [1.0]  # one position has a target

    # p = (1, -0.5), of cosine 2 / sqrt 5 with v_1; the two negatives can but be item 2, of cosine 0.
    both = crafted(view, substitutions=0, contrast=3, negatives=2)
    s = 2 / math.sqrt(5)
    share = 2 / (2 + math.exp(s))
    unit, middle, other = torch.tensor([1.0, 0.0]), torch.tensor([s, -s / 2]), torch.tensor([0.0, 1.0])
    by_middle = (unit - s * middle) / math.sqrt(1.25)
    expected[1] += 3 * share * (-(middle - s * unit) + other) / 2
    expected[0] -= 3 * share * by_middle / 2
    expected[1] -= 3 * share * by_middle / 2
    expected[2] += 3 * share * unit / 3
    assert torch.allclose(rows(both, 3)[0], expected, atol=1e-6)
    assert torch.equal(both.dense.stacked()["b_last"], explicit.dense.stacked()["b_last"])


def plain_substitution(
    model: Sasrec, params: PublicParams, items: list[int], target: int, p: DualView.Params
) -> list[int]:
    """Step 1 for one sequence, with autograd and loops."""
    sequence, length = items[-model.params.max_length :], model.params.max_length
    skipped = len(items) - len(sequence)
    embedded = math.sqrt(8) * params.items[sequence] + params.dense["P"][length - len(sequence) :]
    # The oracle looks items up: a table that has the embedded events, undone.
    leaf = embedded.clone().requires_grad_()
    table = (leaf - params.dense["P"][length - len(sequence) :]) / math.sqrt(8)
    last = outputs(model, PublicParams(table, params.dense), torch.arange(len(sequence)))[-1]
    torch.nn.functional.cross_entropy((params.items @ last)[None], torch.tensor([target])).backward()
    assert leaf.grad is not None
    by_worth = leaf.grad.norm(dim=1).argsort(descending=True).tolist()
    cosine = torch.nn.functional.cosine_similarity
    out = list(sequence)
    for at in by_worth[: p.substitutions]:
        e, g = embedded[at], leaf.grad[at]
        scored = []
        for j in range(M):
            similar = bool(cosine(e, params.items[j], dim=0) >= p.similarity)
            if similar or p.unfit == "as 0":
                scored.append((float(cosine(e - g.sign(), params.items[j], dim=0)) if similar else 0.0, j))
        scored.sort(key=lambda pair: (-pair[0], pair[1]))
        best = -1.0
        for _, j in scored[: p.tries]:
            trial = [*out[:at], j, *out[at + 1 :]]
            chance = float(torch.softmax(params.items @ outputs(model, params, torch.tensor(trial))[-1], 0)[target])
            if chance >= best:
                best, out = chance, trial
    return items[:skipped] + out


@pytest.mark.parametrize(
    ("options", "targets"),
    [
        ({"substitutions": 2, "tries": 4, "similarity": 0.2}, (7,)),
        ({"substitutions": 3, "tries": 6, "similarity": 0.4, "unfit": "never", "contrast": 0.5}, (7, 2)),
        ({"substitutions": 0}, (2, 7)),
        ({"substitutions": 1, "contrast": 0, "similarity": 1.0}, (3,)),
        ({"substitutions": 40, "tries": 40, "similarity": 1.0, "unfit": "never"}, (3,)),
    ],
)
def test_uploads_agree_with_autograd_client_by_client(
    make_view: MakeView, options: dict[str, Any], targets: tuple[int, ...]
) -> None:
    model = recommender(residual="input")
    params = noisy(model.init_params(M, torch.Generator().manual_seed(0)))
    profiles = [[3], [0, 4, 7, 9, 15], list(range(2, 16))]  # one event, some, more than max_length
    own = Profiles(
        torch.arange(3).repeat_interleave(torch.tensor([len(each) for each in profiles])),
        torch.tensor([item for each in profiles for item in each]),
    )
    view = make_view(DualView.card, model, targets=targets, params=params, own_data=own, loss="bpr", num_malicious=3)
    sent = crafted(view, **{"negatives": 6, "repeats": 2} | options)
    p = DualView.Params(**{"negatives": 6, "repeats": 2} | options)
    drawn = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for client, items in enumerate(profiles):
        table = params.items.clone().requires_grad_()
        dense = {name: value.clone().requires_grad_() for name, value in params.dense.items()}
        now = PublicParams(table, dense)
        foreign = [j for j in range(M) if j not in items]
        negatives = [foreign[int(u * len(foreign))] for u in drawn[client].tolist()]
        loss = torch.zeros(())
        for target in targets:
            changed = plain_substitution(model, params, items, target, p) if p.substitutions else items
            last = outputs(model, now, torch.tensor(changed[-10:]))[-1]
            loss = loss - torch.nn.functional.logsigmoid(last @ table[target]) / len(targets)
            like = [table[items].mean(0), *table[negatives]]
            cosines = torch.stack([torch.nn.functional.cosine_similarity(table[target], v, dim=0) for v in like])
            loss = loss - p.contrast * torch.log_softmax(cosines, 0)[0] / len(targets)
        loss.backward()
        assert torch.allclose(rows(sent)[client], table.grad, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
        for name, value in dense.items():
            assert value.grad is not None
            assert torch.allclose(sent.dense.stacked()[name][client], value.grad, rtol=1e-4, atol=1e-5), name
    assert sent.weights.tolist() == [0.0, 4.0, 10.0]


def chances(model: Sasrec, params: PublicParams, histories: Histories, target: torch.Tensor) -> torch.Tensor:
    n = len(target)
    made = model.represent(params, torch.zeros(n, 0), histories)
    return torch.softmax(model.score_all(params, made), 1)[torch.arange(n), target]


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 13), min_size=1, max_size=4).filter(any),
    substitutions=st.integers(1, 3),
    dropout=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 99),
)
def test_few_events_change_and_the_target_gains(
    lengths: list[int], substitutions: int, dropout: float, seed: int
) -> None:
    """Where everything is tried, what was there is, too: the chance of the target never falls."""
    g = torch.Generator().manual_seed(seed)
    model = recommender(dropout=dropout)
    params = noisy(model.init_params(M, g), seed)
    item = torch.cat([torch.randperm(M, generator=g)[:length] for length in lengths])
    before = Histories.of(torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)), item, len(lengths))
    target = torch.randint(M, (len(lengths),), generator=g)
    p = DualView.Params(substitutions=substitutions, tries=M, similarity=-1)
    after = substituted(model, params, before, target, p, g)
    assert torch.equal(after.starts, before.starts)
    changed = torch.bincount(owners(before)[after.item != before.item], minlength=len(lengths))
    assert bool((changed <= substitutions).all())
    gain = chances(model, params, after, target) / chances(model, params, before, target)
    assert bool((gain >= 1 - 1e-4).all())


def test_dropout_makes_repeats_differ() -> None:
    model = recommender(dropout=0.5)
    params = noisy(model.init_params(M, torch.Generator().manual_seed(0)))
    many = repeated(Histories(torch.tensor([0, 8]), torch.arange(8)), 30)
    p = DualView.Params(similarity=-1)
    after = substituted(model, params, many, torch.full((30,), 9), p, torch.Generator().manual_seed(0))
    assert len(after.item.view(30, 8).unique(dim=0)) > 1


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weight=st.floats(0.1, 5), seed=st.integers(0, 99))
def test_the_two_views_add_up(make_view: MakeView, weight: float, seed: int) -> None:
    model = recommender()
    views = [make_view(DualView.card, model, loss="bpr", seed=seed, targets=(7, 2)) for _ in range(3)]
    neither, once, often = (
        rows(crafted(v, substitutions=0, contrast=c)) for v, c in zip(views, (0, 1, weight), strict=True)
    )
    assert torch.allclose(often - neither, weight * (once - neither), atol=1e-4)


def test_it_refuses_models_that_read_no_sequences() -> None:
    with pytest.raises(UserError, match=r"attack 'dv-fsr' does not apply to model 'mf'; it applies to sasrec"):
        _ = Scenario("longtail-small", "mf", "dv-fsr", malicious_ratio=0.05, protocol="aaai23").resolved
