"""What a record keeps of the images of a run: every upload against its original, detection, and quality."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import torch

from fedbench.data import Split
from fedbench.errors import UserError
from fedbench.federation.gallery import Gallery, Upload
from fedbench.federation.simulation import Federation
from fedbench.runs.record import IMAGE_MEASURES, UPLOAD_MEASURES
from fedbench.runs.task import pictures_of
from fedbench.vision.measures import blur_scores, brisque_scores, detection, largest_change, psnr, ssim

Measures = dict[str, float | None]


def image_columns(federation: Federation | None, split: Split) -> dict[str, Any]:
    """The columns of a record that say something of images; none for models that read none."""
    if federation is None or federation.gallery is None:
        return {}
    gallery = federation.gallery
    uploads = [each for upload in gallery.uploads for each in measures_of(gallery, upload)]
    columns: Measures = dict.fromkeys(IMAGE_MEASURES)
    last = {each["item"]: each for each in uploads}
    for name in UPLOAD_MEASURES:
        columns[f"image_{name}"] = _mean([each[name] for each in last.values()])
    columns["clean_similarity_mean"] = float(gallery.similarity.mean())
    columns["clean_similarity_min"] = float(gallery.similarity.min())
    if uploads and gallery.purifies:
        columns |= {f"detection_{name}": value for name, value in _detected(gallery, last.values()).items()}
    columns |= _quality(gallery.purified)
    return {
        "extractor": getattr(federation.model.params, "extractor", None),
        "images_fingerprint": pictures_of(split).fingerprint,
        "uploads": uploads,
        "images": columns,
    }


def measures_of(gallery: Gallery, upload: Upload) -> list[Measures]:
    """Epoch, item and :data:`UPLOAD_MEASURES` of every image of an upload."""
    original = gallery.images.pixels[upload.items.to(gallery.images.pixels.device)]
    cosine = torch.cosine_similarity(gallery.original_features(upload.items), upload.features, dim=1)
    flagged: list[float | None] = (
        [None] * len(upload.items) if upload.flagged is None else upload.flagged.double().tolist()
    )
    values = {
        "item": upload.items.tolist(),
        "change": largest_change(original, upload.pixels).tolist(),
        "psnr": psnr(original, upload.pixels).tolist(),
        "ssim": ssim(original, upload.pixels).tolist(),
        "cosine": cosine.tolist(),
        "similarity": upload.similarity.tolist(),
        "flagged": flagged,
    }
    return [
        {"epoch": upload.epoch, **dict(zip(values, each, strict=True))} for each in zip(*values.values(), strict=True)
    ]


def _detected(gallery: Gallery, uploads: Collection[Measures]) -> Measures:
    """Of ``uploads``, one for each target, among the clean images that no threshold was set by."""
    similarity = torch.tensor([each["similarity"] for each in uploads])
    flagged = [each["flagged"] for each in uploads if each["flagged"] is not None]
    clean, clean_flags = gallery.held_out.cpu(), gallery.held_out_flags
    return detection(clean, similarity, clean_flags, torch.tensor(flagged) if flagged else None)


def _quality(pixels: torch.Tensor) -> Measures:
    """Blur and, where its package is installed, BRISQUE: mean and standard deviation over the images."""
    found = {"blur": blur_scores(pixels)}
    with contextlib.suppress(UserError):
        found["brisque"] = brisque_scores(pixels)
    return {
        f"{name}_{part}": float(value)
        for name, scores in found.items()
        for part, value in (("mean", scores.mean()), ("std", scores.std(correction=0)))
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
