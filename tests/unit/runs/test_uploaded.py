"""The images that an attack showed, beside the record of its run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import Field

from fedbench.attacks.none import NoAttack
from fedbench.defenses import DEFENSES
from fedbench.defenses.chain import Chain
from fedbench.entries.cards import AttackCard, Channel, Goal, NoParameters, Parameters
from fedbench.errors import ResultsError
from fedbench.federation.attack import Attack
from fedbench.federation.defense import Defense
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.simulation import Federation
from fedbench.federation.view import AttackerView
from fedbench.runs.diagnostics import SUFFIX as ROUNDS
from fedbench.runs.results import BESIDE, scan
from fedbench.runs.uploaded import METADATA, SUFFIX, Uploaded, keep_uploaded, read_uploaded, threshold_of, uploaded_path
from fedbench.testing import small_federation, small_task
from fedbench.testing.federations import small_images


class Brighter(Attack):
    """Shows the targets brighter by one step each epoch; from epoch 3 on only the first of them."""

    card = AttackCard("brighter", "Brighter", "none", Goal.PROMOTE, Channel.IMAGE)

    class Params(Parameters):
        """Parameters."""

        eps: int = Field(4, description="how far a pixel may move")

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages:
        items = view.targets if view.epoch < 3 else view.targets[:1]
        changed = images.pixels[items].int() + view.epoch
        return ReplacedImages(items, changed.clamp(0, 255).to(torch.uint8))


def defense(name: str, **params: object) -> Defense:
    cls = DEFENSES.get(name)
    return cls(cls.Params(**params))


def federation(attack: Attack | None = None, epochs: int = 3, rule: Defense | None = None) -> Federation:
    """Targets 7 and 3 of 40 items; items 0 and 9 have no image."""
    task = small_task(num_malicious=0 if attack is None else 2, targets=(7, 3))
    there = torch.ones(40, dtype=torch.bool)
    there[[0, 9]] = False
    images = small_images(40)
    pixels = images.pixels * there[:, None, None, None]
    task = replace(task, images=ItemImages(pixels, images.extract, there))
    made = small_federation("vncf", attack or NoAttack(NoParameters()), rule, task=task)
    for _ in range(epochs):
        made.train_epoch()
    return made


@pytest.fixture(scope="module")
def attacked() -> Federation:
    return federation(Brighter(Brighter.Params()), rule=defense("bit-depth", bits=3))


def test_the_last_image_of_every_target_and_the_clean_similarities(attacked: Federation, tmp_path: Path) -> None:
    keep_uploaded(attacked, tmp_path, "r")
    found = read_uploaded(tmp_path / "r.images.parquet")
    assert (found.items.tolist(), found.epochs.tolist(), found.eps) == ([3, 7], [2, 3], 4.0)
    assert attacked.gallery is not None
    original = attacked.gallery.images.pixels.int()
    for item, epoch, pixels in zip(found.items, found.epochs, found.pixels, strict=True):
        assert np.array_equal(pixels, (original[item] + epoch).clamp(0, 255).numpy())
    assert found.clean_items.tolist() == [item for item in range(40) if item not in (0, 9)]
    assert np.array_equal(found.similarity, attacked.gallery.similarity.numpy())
    assert found.threshold == pytest.approx(float(attacked.gallery.similarity[::2].min()))


def test_an_uploaded_image_of_an_item_without_one_is_kept(attacked: Federation, tmp_path: Path) -> None:
    made = Uploaded.of(attacked)
    assert made is not None
    keep = ~np.isin(made.clean_items, [7])
    fewer = replace(made, clean_items=made.clean_items[keep], similarity=made.similarity[keep], threshold=None)
    found = read_uploaded(fewer.write(tmp_path, "r"))
    assert (found.items.tolist(), found.threshold) == ([3, 7], None)
    assert 7 not in found.clean_items
    assert np.array_equal(found.pixels, made.pixels)


def test_the_file_belongs_to_the_last_execution(attacked: Federation, tmp_path: Path) -> None:
    path = uploaded_path(tmp_path, "r")
    for without in (None, federation(epochs=1), federation(Brighter(Brighter.Params()), epochs=0)):
        path.write_bytes(b"old")
        keep_uploaded(without, tmp_path, "r")
        assert not path.exists()
    keep_uploaded(attacked, tmp_path, "r")
    first = path.read_bytes()
    keep_uploaded(attacked, tmp_path, "r")
    assert path.read_bytes() == first
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_it_is_no_record(attacked: Federation, tmp_path: Path) -> None:
    assert sorted(BESIDE) == sorted((ROUNDS, SUFFIX))
    keep_uploaded(attacked, tmp_path, "r")
    found = scan([tmp_path])
    assert (found.files, found.damaged) == ([], {})


def test_models_without_images_have_none() -> None:
    made = small_federation()
    made.train_epoch()
    assert Uploaded.of(made) is None


def test_a_chain_flags_what_one_of_its_parts_flags() -> None:
    parts = [defense("none"), defense("bit-depth", threshold=0.2), defense("blur", threshold=0.7)]
    assert threshold_of(Chain(parts)) == 0.7
    assert threshold_of(Chain(parts[:2])) == 0.2
    assert threshold_of(parts[0]) is None


def test_damaged_files_are_one_line(attacked: Federation, tmp_path: Path) -> None:
    path = tmp_path / "r.images.parquet"
    made = Uploaded.of(attacked)
    assert made is not None
    table = made.table("r")
    about = json.loads(table.schema.metadata[METADATA])

    def refused(changed: pa.Table) -> str:
        pq.write_table(changed, path)
        with pytest.raises(ResultsError) as error:
            read_uploaded(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    def saying(**values: object) -> pa.Table:
        return table.replace_schema_metadata({METADATA: json.dumps(about | values).encode()})

    assert refused(saying(version=99)).endswith("have version 99, newer than this fedbench.")
    assert "are damaged" in refused(saying(size=[9, 8]))
    assert "are damaged" in refused(table.replace_schema_metadata(None))
    assert "are damaged" in refused(table.drop_columns("pixels"))
    path.write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match="are damaged"):
        read_uploaded(path)
    with pytest.raises(ResultsError, match="cannot write"):
        made.write(path, "r")
