"""The contracts of what changes images: attacks that show others, and purifiers; what breaks one rule fails that check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field

from fedbench.attacks import Attack
from fedbench.defenses import DEFENSES, Defense
from fedbench.entries.cards import AttackCard, Channel, DefenseCard, DefenseFamily, Goal, NoParameters, Parameters
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.view import AttackerView
from fedbench.models import MODELS
from fedbench.testing import Budget, Finding, check_attack, check_defense, failures, showing

AMPLE = Budget(times=1000, seconds=60)
ONE = ["vncf"]


class Good(Attack):
    """Darkens the targets a little."""

    card: ClassVar[AttackCard] = AttackCard("good", "Good", "nobody, 2024", Goal.PROMOTE, Channel.IMAGE)

    class Params(Parameters):
        """Parameters."""

        eps: int = Field(4, description="how far a pixel may move")

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        pixels = images.pixels[view.targets].short() - 2
        return self.changed(images, view, ReplacedImages(view.targets, pixels.clamp(min=0).to(torch.uint8)))

    def changed(self, images: ItemImages, view: AttackerView, made: ReplacedImages) -> Any:
        return made


def bad(change: Callable[[ItemImages, AttackerView, ReplacedImages], Any]) -> type[Good]:
    class Bad(Good):
        """A good attack but for one thing."""

        def changed(self, images: ItemImages, view: AttackerView, made: ReplacedImages) -> Any:
            return change(images, view, made)

    return Bad


def anew(images: ItemImages, view: AttackerView, made: ReplacedImages) -> ReplacedImages:
    fresh = torch.Generator()
    fresh.seed()
    return ReplacedImages(
        made.items, (made.pixels // 2 * 2) | torch.randint(2, made.pixels.shape, generator=fresh).byte()
    )


def test_a_good_attack_is_tried_on_the_models_that_look() -> None:
    findings = list(check_attack(Good, AMPLE))
    assert failures(findings) == []
    tried = {each.name for each in findings if each.name.startswith("runs on")}
    looking = [name for name in MODELS.names() if MODELS.get(name).reads_features]
    assert tried == {
        f"runs on {name}, {clients} clients" for name in looking for clients in ("injected", "compromised")
    }
    assert {"within eps", "images"} <= {each.name for each in findings if each.status == "ok"}


def test_an_attack_without_a_bound_is_told_so() -> None:
    class Unbound(Good):
        """A good attack that does not say how far it goes."""

        Params = NoParameters

    assert "its Params must have a number eps" in str(failures(check_attack(Unbound, AMPLE, ONE)))


ATTACK_CASES: dict[str, tuple[str, type[Good], str]] = {
    "nothing": ("images", bad(lambda i, v, m: None), "never showed an image"),
    "type": ("shapes", bad(lambda i, v, m: m.pixels), "perturb() returned Tensor instead of ReplacedImages or None"),
    "floats": ("shapes", bad(lambda i, v, m: ReplacedImages(m.items, m.pixels.float())), "pixels is torch.float32"),
    "size": (
        "shapes",
        bad(lambda i, v, m: ReplacedImages(m.items, m.pixels[..., 1:])),
        "instead of torch.uint8 [1, 3, 8",
    ),
    "others": ("shapes", bad(lambda i, v, m: ReplacedImages(m.items + 1, m.pixels)), "items that are no targets"),
    "far": (
        "within eps",
        bad(lambda i, v, m: ReplacedImages(m.items, (i.pixels[m.items].short() + 5).clamp(max=255).byte())),
        "changed by 5, more than eps = 4",
    ),
    "in place": (
        "inputs unchanged",
        bad(lambda i, v, m: i.pixels.add_(0) is None or m),
        "changed images.pixels in place",
    ),
    "global": ("global random state", bad(lambda i, v, m: torch.rand(1) is None or m), "perturb() moved the global"),
    "undeclared": ("threat model", bad(lambda i, v, m: v.purify(m.pixels)), "knowledge 'defense'"),
    "anew": ("deterministic", bad(anew), "uploaded different numbers"),
}


@pytest.mark.parametrize("case", ATTACK_CASES)
def test_an_attack_that_breaks_one_rule_fails_that_check_alone(case: str) -> None:
    check, cls, what = ATTACK_CASES[case]
    found = [each for each in check_attack(cls, AMPLE, ONE) if not each.ok]
    assert {each.name for each in found} == {check}, found
    assert what in found[0].what
    assert found[0].todo


Purify = Callable[[torch.Tensor, torch.Generator], Any]


def purifier(purify: Purify) -> type[Defense]:
    class Purifies(Defense):
        """Cleans images as it is told to."""

        card = DefenseCard("bad", "Bad", "nobody", DefenseFamily.PURIFICATION)

        def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            made: torch.Tensor = purify(pixels, generator)
            return made

    return Purifies


def checked(cls: type[Defense]) -> list[Finding]:
    return list(check_defense(cls, AMPLE, ONE))


def speckled(pixels: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    noise = torch.randint(0, 3, pixels.shape, generator=generator)
    return (pixels + noise).clamp(max=255).byte()


def unsteady(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    fresh = torch.Generator()
    fresh.seed()
    return speckled(pixels, fresh)


DEFENSE_CASES: dict[str, tuple[set[str], type[Defense], str]] = {
    "type": ({"shapes"}, purifier(lambda x, g: x.tolist()), "purify() returned list instead of a tensor"),
    "floats": ({"shapes"}, purifier(lambda x, g: x.float()), "purify() returned torch.float32"),
    "square alone": (
        {"images of any size"},
        purifier(lambda x, g: x.mT.contiguous()),
        "purify() returned torch.uint8 [2, 3, 9, 5] on cpu instead of torch.uint8 [2, 3, 5, 9]",
    ),
    "overflow": ({"plain images"}, purifier(lambda x, g: x + 1), "have a mean of 1, 129 and 0"),
    "in place": ({"inputs unchanged"}, purifier(lambda x, g: x.add_(0)), "purify() changed pixels in place"),
    "global": ({"global random state"}, purifier(lambda x, g: speckled(x, None)), "purify() moved the global"),
    "unsteady": ({"deterministic"}, purifier(unsteady), "different parameters"),
}


@pytest.mark.parametrize("case", DEFENSE_CASES)
def test_a_purifier_that_breaks_one_rule_fails_that_check_alone(case: str) -> None:
    checks, cls, what = DEFENSE_CASES[case]
    found = [each for each in checked(cls) if not each.ok]
    assert {each.name for each in found} == checks, found
    assert what in found[0].what
    assert found[0].todo


def test_a_purifier_whose_draws_belong_to_places_is_warned() -> None:
    findings = checked(purifier(speckled))
    assert failures(findings) == []
    assert [each.name for each in findings if each.status == "warning"] == ["batch"]


def test_a_slow_purifier_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "MINUTES", 0)
    (found,) = [each for each in checked(purifier(lambda x, g: x)) if not each.ok]
    assert found.name == "purification time"
    assert "at most 0 min" in found.what


def test_purifiers_that_come_along_are_tried_on_the_models_that_look() -> None:
    findings = list(check_defense(DEFENSES.get("blur"), AMPLE))
    assert {each.status for each in findings} <= {"ok", "skipped"}
    tried = [each.name.removeprefix("runs on ") for each in findings if each.name.startswith("runs on")]
    assert tried
    assert all(MODELS.get(name).reads_features for name in tried)
