"""Models of logits alone, against models that are written by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from fedbench import check_model, failures
from fedbench.entries.cards import ModelCard
from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows
from fedbench.federation.losses import Loss
from fedbench.federation.model import PublicParams, Recommender
from fedbench.models import autograd
from fedbench.models.autograd import AutogradRecommender
from fedbench.models.mf import MatrixFactorization
from fedbench.models.ncf import NeuralCollaborativeFiltering
from fedbench.randomness import generator

USERS, ITEMS, D = 7, 30, 8


class Product(AutogradRecommender):
    """Matrix factorisation."""

    card = ModelCard(name="product", title="A product", paper="none")

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return (users * items).sum(-1)


class Perceptron(AutogradRecommender):
    """The logits of ncf."""

    card = ModelCard(name="perceptron", title="A perceptron", paper="none")

    @property
    def hand(self) -> NeuralCollaborativeFiltering:
        size = self.params.embedding_size
        return NeuralCollaborativeFiltering(NeuralCollaborativeFiltering.Params(embedding_size=size))

    def init_dense(self, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        return self.hand.init_params(1, generator).dense

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self.hand.logits(dense, users, items)


def case(kind: str) -> tuple[torch.Tensor, Batch]:
    draws = generator(2, "case")
    user = torch.randint(USERS, (60,), generator=draws).sort().values
    item = torch.randint(ITEMS, (60,), generator=draws)
    negative = torch.randint(ITEMS, (60, 2), generator=draws)
    rows = TrainingRows.build(user, item, negative, USERS + 1, ITEMS, pairwise=kind == "bpr")
    clients = torch.tensor([3, 0, 7, 5])  # 7 has no rows
    return torch.randn(4, D, generator=draws), rows.select(clients)


@pytest.mark.parametrize("last", ["sum", "last"])
@pytest.mark.parametrize("kind", ["bce", "bpr"])
@pytest.mark.parametrize(
    ("own", "hand"),
    [(Product, MatrixFactorization), (Perceptron, NeuralCollaborativeFiltering)],
    ids=["product", "perceptron"],
)
def test_gradients_are_those_of_code_by_hand(
    own: type[AutogradRecommender], hand: type[Recommender], kind: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autograd, "_PADDED", 20)  # clients in several groups
    one, two = own(own.Params(embedding_size=D)), hand(hand.Params(embedding_size=D))
    users, batch = case(kind)
    drawn = one.init_params(ITEMS, generator(1, "params"))
    params = PublicParams(30 * drawn.items, {name: 1.5 * value + 0.1 for name, value in drawn.dense.items()})
    loss = Loss(kind, "mean", 0.01, last)
    made, known = one.local_step(params, users, batch, loss), two.local_step(params, users, batch, loss)

    def equal(a: torch.Tensor, b: torch.Tensor) -> None:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

    equal(made.users, known.users)
    assert len(made.rows) == 1
    assert torch.equal(made.rows[0].item, batch.item)
    equal(made.rows[0].grad(), torch.cat([block.grad() for block in known.rows]))
    equal(made.rows[0].sum(ITEMS), sum(block.sum(ITEMS) for block in known.rows))  # type: ignore[arg-type]
    factor = torch.tensor([0.5, 2.0, 1.0, 0.0])
    for of, at in (
        (made.dense.total(), known.dense.total()),
        (made.dense.stacked(), known.dense.stacked()),
        (made.dense.scaled(factor).total(), known.dense.scaled(factor).total()),
    ):
        assert set(of) == set(at) == set(params.dense)
        for name, value in at.items():
            equal(of[name], value)
    equal(one.score_all(params, users), two.score_all(params, users))
    assert not any(value.requires_grad for value in (made.users, made.rows[0].grad(), *made.dense.total().values()))


def test_by_hand() -> None:
    """One client with a positive that scores log 3 and a negative that scores 0: e = -1/8 and 1/4."""
    log3 = float(torch.tensor(3.0).log())
    model = Product(Product.Params(embedding_size=1))
    rows = TrainingRows.build(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]), 1, 2)
    params = PublicParams(torch.tensor([[log3], [0.0]]), {})
    step = model.local_step(params, torch.tensor([[1.0]]), rows.select(torch.tensor([0])), Loss())
    assert step.rows[0].grad().squeeze(1).tolist() == pytest.approx([-0.125, 0.25])
    assert float(step.users) == pytest.approx(-0.125 * log3)


@pytest.mark.parametrize("cls", [Product, Perceptron])
def test_they_pass_every_check(cls: type[AutogradRecommender]) -> None:
    assert failures(check_model(cls)) == []


def test_scores_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Perceptron(Perceptron.Params(embedding_size=D))
    params = model.init_params(ITEMS, generator(1, "params"))
    users = torch.randn(9, D, generator=generator(1, "users"))
    whole = model.score_all(params, users)
    monkeypatch.setattr(autograd, "_SCORES", 2 * ITEMS)
    assert torch.allclose(model.score_all(params, users), whole, atol=1e-7)
