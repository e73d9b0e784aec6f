"""The seams for images: a tiny model that looks at them, an attack that repaints them, a defense that greys them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pydantic import Field

from fedbench.attacks.none import NoAttack
from fedbench.defenses.chain import Chain
from fedbench.defenses.none import NoDefense
from fedbench.entries.cards import (
    AttackCard,
    Channel,
    DefenseCard,
    DefenseFamily,
    Goal,
    Knowledge,
    ModelCard,
    NoParameters,
    Parameters,
)
from fedbench.errors import ThreatModelViolation, UserError
from fedbench.federation.attack import Attack
from fedbench.federation.batch import Batch
from fedbench.federation.defense import Defense
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.losses import Loss
from fedbench.federation.model import LocalStep, PublicParams
from fedbench.federation.protocol import Protocol
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import DenseGradients
from fedbench.federation.view import AttackerView
from fedbench.models.mf import MatrixFactorization
from fedbench.testing import small_federation, small_task


class Sighted(MatrixFactorization):
    """``s_uj = u_u . (v_j + E phi_j)``."""

    card = ModelCard(name="sighted", title="Sighted", paper="none")
    reads_features = True

    def init_feature_params(self, num_features: int, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        return {"E": torch.randn(self.embedding_size, num_features, generator=generator)}

    def looks(self, params: PublicParams) -> PublicParams:
        assert params.features is not None
        return PublicParams(params.items + params.features @ params.dense["E"].T, {})

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        return super().score_all(self.looks(params), users)

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        d = self.embedding_size
        return super().logits({}, users, items[..., :d] + items[..., d:] @ dense["E"].mT)

    def local_step(
        self,
        params: PublicParams,
        users: torch.Tensor,
        batch: Batch,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> LocalStep:
        assert params.features is not None
        local = super().local_step(self.looks(params), users, batch, loss, generator)
        grad = torch.cat([block.grad() for block in local.rows])
        seen = params.features[torch.cat([block.item for block in local.rows])]
        owner = torch.cat([block.client for block in local.rows])
        by_client = grad.new_zeros(len(users), grad.shape[1], seen.shape[1])
        by_client.index_add_(0, owner, grad[:, :, None] * seen[:, None, :])
        return LocalStep(local.rows, DenseGradients.of({"E": by_client}), local.users)


Perturb = Callable[[ItemImages, AttackerView], ReplacedImages | None]


class Painter(Attack):
    """Shows what it is told to."""

    card = AttackCard(name="painter", title="Painter", paper="none", goal=Goal.PROMOTE, channel=Channel.IMAGE)

    class Params(Parameters):
        """What every such attack has."""

        eps: int = Field(255, description="how far a pixel may move")

    def __init__(self, paint: Perturb, eps: int = 255) -> None:
        super().__init__(self.Params(eps=eps))
        self.paint = paint
        self.seen: list[tuple[int, int, int]] = []

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        self.seen.append((view.epoch, view.round, len(view.clients)))
        assert view.params.features is not None
        return self.paint(images, view)


def white(images: ItemImages, view: AttackerView) -> ReplacedImages:
    return ReplacedImages(view.targets, torch.full_like(images.pixels[view.targets], 255))


class Darkened(Defense):
    """Every image as if it were seen with sunglasses, which let through a tenth at a time."""

    card = DefenseCard(name="darkened", title="Darkened", paper="none", family=DefenseFamily.FILTER)

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return pixels // 10


class Speckled(Darkened):
    """The same with noise."""

    card = replace(Darkened.card, name="speckled")

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return pixels + torch.randint(0, 5, pixels.shape, generator=generator, dtype=torch.uint8)


def mean_colour(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float().mean((2, 3)) / 255


def album(num_items: int = 40) -> ItemImages:
    g = torch.Generator().manual_seed(1)
    return ItemImages(torch.randint(0, 200, (num_items, 3, 4, 4), generator=g, dtype=torch.uint8), mean_colour)


def sighted(attack: Attack | None = None, defense: Defense | None = None, **protocol: object) -> Federation:
    task = replace(small_task(num_malicious=3 if attack else 0), images=album())
    model = Sighted(Sighted.Params(embedding_size=4, init_std=0.3))
    return small_federation(model, attack, defense, task=task, **protocol)


def test_the_model_reads_features_and_learns_how_they_matter() -> None:
    federation = sighted()
    start = federation.params
    assert start.features is not None
    assert torch.equal(start.features, mean_colour(album().pixels))
    for _ in range(2):
        federation.train_epoch()
    now = federation.params
    assert now.features is start.features, "nobody trains them"
    assert not torch.equal(now.dense["E"], start.dense["E"])
    items, users = torch.arange(40), federation.users[:5]
    described = now.described(items)
    assert described.shape == (40, 4 + 3)
    scores = federation.model.logits(now.dense, users[:, None], described)
    assert torch.allclose(scores, federation.model.score_all(now, users), atol=1e-5)


def test_gradients_are_those_of_autograd() -> None:
    federation = sighted()
    params, training = federation.params, federation.training
    batch = federation.population.rows.select(torch.tensor([3]))
    e = params.dense["E"].clone().requires_grad_()
    users = federation.users[batch.clients]
    rows = params.described(batch.item)
    logits = federation.model.logits({"E": e}, users[batch.client], rows)
    training.loss.value(logits, batch).sum().backward()
    local = federation.model.local_step(params, users, batch, training.loss)
    assert e.grad is not None
    assert torch.allclose(local.dense.total()["E"], e.grad, atol=1e-6)


def test_images_are_replaced_before_an_epoch_once_the_attack_has_begun() -> None:
    painter = Painter(white)
    federation = sighted(painter, attack_start=2)
    original = federation.params.features
    assert original is not None
    federation.train_epoch()
    assert federation.params.features is original
    rounds = federation.round
    federation.train_epoch()
    now = federation.params.features
    assert now is not None
    assert now[7].tolist() == [1, 1, 1]
    others = torch.arange(40) != 7
    assert torch.equal(now[others], original[others])
    assert painter.seen == [(2, rounds, 0)]


def test_an_attack_may_show_nothing_new() -> None:
    federation = sighted(Painter(lambda images, view: None))
    before = federation.params.features
    federation.train_epoch()
    assert federation.params.features is before


def test_every_image_passes_the_defense_before_it_becomes_features() -> None:
    federation = sighted(Painter(white), Darkened(NoParameters()))
    assert federation.params.features is not None
    assert torch.equal(federation.params.features, mean_colour(album().pixels // 10))
    federation.train_epoch()
    assert federation.params.features[7].tolist() == pytest.approx([25 / 255] * 3)


def test_a_chain_purifies_in_order_and_from_a_stream_of_its_own() -> None:
    chain = Chain([Darkened(NoParameters()), Speckled(NoParameters())])
    once, again = sighted(defense=chain), sighted(defense=chain)
    plain = mean_colour(album().pixels // 10)
    assert once.params.features is not None
    assert again.params.features is not None
    added = once.params.features - plain
    assert 0 < float(added.min()) < float(added.max()) < 5 / 255
    assert torch.equal(once.params.features, again.params.features)


@pytest.mark.parametrize(
    ("paint", "why"),
    [
        (lambda i, v: ReplacedImages(v.targets, i.pixels[v.targets].float()), r"images of torch\.float32"),
        (lambda i, v: ReplacedImages(v.targets, i.pixels[:2]), r"they must be torch\.uint8 \(1, 3, 4, 4\)"),
        (lambda i, v: ReplacedImages(v.targets + 1, i.pixels[v.targets]), "images of items that are no targets"),
        (lambda i, v: ReplacedImages(v.targets.repeat(2), i.pixels[v.targets.repeat(2)]), "two images of one item"),
        (lambda i, v: (i.pixels.zero_(), None)[1], "in place"),
        (lambda i, v: (v.params.features.zero_(), None)[1], "in place"),
        (lambda i, v: v.item_popularity, f"knowledge '{Knowledge.ITEM_POPULARITY}'"),
    ],
    ids=["not 8 bit", "another number", "no target", "twice", "writes to images", "writes to features", "unknown"],
)
def test_what_an_image_attack_must_not_do(paint: Perturb, why: str) -> None:
    def quiet(images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        made = paint(images, view)
        return made if isinstance(made, ReplacedImages) else None

    with pytest.raises(ThreatModelViolation, match=why):
        sighted(Painter(quiet)).train_epoch()


def test_images_are_needed_where_they_are_read() -> None:
    model = Sighted(Sighted.Params(embedding_size=4))
    with pytest.raises(UserError, match="model 'sighted' reads images of items, and these data have none"):
        Federation(small_task(), model, NoAttack(NoParameters()), NoDefense(NoParameters()), 0.0, Protocol(), 0)


def test_a_model_that_reads_none_is_left_alone() -> None:
    painter = Painter(white)
    task = small_task(num_malicious=3)
    with_images = small_federation("mf", painter, task=replace(task, images=album()))
    without = small_federation("mf", painter, task=task)
    for federation in (with_images, without):
        federation.train_epoch()
    assert torch.equal(with_images.params.items, without.params.items)
    assert painter.seen == []


def test_the_network_that_looks_is_not_to_be_changed() -> None:
    class Eye:
        def __init__(self) -> None:
            self.extractor = SimpleNamespace(network=torch.nn.Linear(3, 5))

        def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.extractor.network(mean_colour(pixels)).detach()

    def blinding(images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        with torch.no_grad():
            images.extract.extractor.network.weight.zero_()
        return None

    task = replace(small_task(num_malicious=3), images=replace(album(), extract=Eye()))
    federation = small_federation(Sighted(Sighted.Params(embedding_size=4)), Painter(blinding), task=task)
    with pytest.raises(ThreatModelViolation, match="in place"):
        federation.train_epoch()


def test_changes_stay_within_the_eps_of_the_parameters() -> None:
    def brighter(images: ItemImages, view: AttackerView) -> ReplacedImages:
        painter.__dict__["eps"] = 255
        return ReplacedImages(view.targets, images.pixels[view.targets] + 5)

    painter = Painter(brighter, eps=4)
    with pytest.raises(ThreatModelViolation, match="changed a pixel by 5, more than its eps = 4"):
        sighted(painter).train_epoch()


def test_an_attack_that_reuses_its_buffer_leaves_what_was_shown() -> None:
    buffer = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)

    def darker(images: ItemImages, view: AttackerView) -> ReplacedImages:
        return ReplacedImages(view.targets, buffer.fill_(10 * view.epoch))

    federation = sighted(Painter(darker))
    for _ in range(3):
        federation.train_epoch()
    assert federation.gallery is not None
    assert [int(upload.pixels.max()) for upload in federation.gallery.uploads] == [10, 20, 30]


@pytest.mark.parametrize("clients", ["injected", "compromised"])
def test_who_only_shows_images_has_no_clients(clients: str) -> None:
    """Shown the original ones, training is that without an attack, bit for bit."""
    same = Painter(lambda images, view: ReplacedImages(view.targets, images.pixels[view.targets]))
    attacked, clean = sighted(same, malicious_clients=clients), sighted(malicious_clients=clients)
    assert attacked.adversary is not None
    assert attacked.adversary.view.num_malicious == 3
    for federation in (attacked, clean):
        for _ in range(3):
            federation.train_epoch()
    assert torch.equal(attacked.params.items, clean.params.items)
    assert torch.equal(attacked.users, clean.users)
    assert torch.equal(attacked.population.evaluated_users, clean.population.evaluated_users)


def test_half_of_the_clean_images_sets_the_threshold_the_other_half_tells_false_alarms() -> None:
    class Watchful(Speckled):
        card = replace(Speckled.card, name="watchful")
        on_flag = "keep-original"

        def flags(self, similarity: torch.Tensor, known_clean: bool) -> torch.Tensor | None:
            self.seen.append((len(similarity), known_clean))
            return torch.ones(len(similarity), dtype=torch.bool)

    watchful = Watchful(NoParameters())
    watchful.seen = []
    federation = sighted(Painter(white), watchful)
    before = federation.params.features
    assert watchful.seen == [(20, True), (20, False)]
    assert federation.gallery is not None
    assert federation.gallery.held_out_flags.tolist() == [True] * 20
    federation.train_epoch()
    assert watchful.seen[2:] == [(1, False)]
    assert torch.equal(federation.params.features, before), "the flagged image's features are those of the original"
