"""Constructed records of runs in which an attack showed images, with the file beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from records import record, write

from fedbench.data.images import load_pictures
from fedbench.runs.uploaded import Uploaded
from fedbench.scenarios.scenario import Scenario

ITEMS, EPS = [9, 4], 4


def scenario(defense: str = "bit-depth", **attack_params: Any) -> Scenario:
    return Scenario(
        "longtail-small",
        "vncf",
        "psmu-v",
        defense,
        malicious_ratio=0.05,
        protocol="tois",
        target="fixed:9,4",
        model_params={"extractor": "random-conv"},
        attack_params=attack_params,
        defense_params={"bits": 3} if defense == "bit-depth" else {},
    )


def made(folder: Path, of: Scenario, seed: int = 0, **columns: Any) -> str:
    """A record with two uploads, 4 steps brighter, and the file beside it; its id."""
    pictures = load_pictures("longtail-small", "leave-one-out")
    upload = {"epoch": 5, "change": 4.0, "psnr": 36.0, "ssim": 0.9, "cosine": 0.8, "flagged": 1.0}
    values: dict[str, Any] = {
        "extractor": "random-conv",
        "images_fingerprint": pictures.fingerprint,
        "uploads": [{**upload, "item": item, "similarity": 0.5 + 0.1 * seed} for item in ITEMS],
        "target_items": ITEMS,
    } | columns
    made = record(of, seed, **values)
    write(folder, made)
    items = np.array(sorted(ITEMS))
    brighter = np.clip(pictures.pixels[items].astype(int) + EPS, 0, 255).astype(np.uint8)
    clean = np.linspace(0.8, 0.99, 40, dtype=np.float32)
    if values["uploads"]:
        Uploaded(EPS, 0.75, items, np.array([5, 5]), brighter, np.arange(40), clean).write(folder, made.run_id)
    return made.run_id
