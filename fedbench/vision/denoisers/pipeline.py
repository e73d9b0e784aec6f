"""Any unconditional model of diffusers, and what ``fedbench vision train-denoiser`` leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from fedbench.entries.cards import DenoiserCard
from fedbench.errors import DataError, UserError, missing_extra
from fedbench.vision.denoisers.unet import CONFIG, UNetDenoiser, UNetSpec, load, sha256_of_network
from fedbench.vision.schedule import signal

_PREDICTIONS = ("epsilon", "v_prediction", "sample")


class PipelineDenoiser(UNetDenoiser):
    """A ``DDPMPipeline`` or ``UNet2DModel`` in a folder or on the Hugging Face hub, or a denoiser that you trained.

    A pipeline's scheduler says what the network predicts and how it was noised; where that is not the schedule here, each
    step becomes the one of the pipeline that has the nearest share of noise. A bare UNet is taken to predict noise on the
    schedule here.
    """

    card = DenoiserCard(
        name="pipeline",
        title="An unconditional pipeline or UNet of diffusers",
        paper="von Platen et al., 2022 (diffusers)",
        notes="weights: a folder (also one that `fedbench vision train-denoiser` wrote), or a name on the hub.",
    )

    needs = "a folder, or a name on the hub"

    @classmethod
    def make(cls, weights: str | None = None) -> Self:
        if not weights:
            raise UserError("denoiser 'pipeline' needs weights: a folder with a pipeline of diffusers, or a hub id.")
        folder = Path(os.path.expanduser(weights))
        if folder.is_dir() and "patch" in _read(folder / CONFIG):
            return cls(*load(folder), any_size=True)
        return cls._of_diffusers(weights, folder)

    @classmethod
    def _of_diffusers(cls, weights: str, folder: Path) -> Self:
        try:
            from diffusers import DDPMPipeline, UNet2DModel
        except ImportError:
            raise missing_extra("vision", "denoiser 'pipeline'") from None
        source = str(folder) if folder.is_dir() else weights
        bare = folder.is_dir() and not (folder / "model_index.json").is_file()
        if not folder.is_dir() and (folder.is_absolute() or weights.count("/") != 1):
            raise UserError(f"denoiser 'pipeline': {weights!r} is neither a folder nor a name on the hub (owner/name).")
        config: dict[str, Any] = {}
        try:
            if bare:
                network = UNet2DModel.from_pretrained(source)  # type: ignore[no-untyped-call]
            else:
                pipeline = DDPMPipeline.from_pretrained(source)  # type: ignore[no-untyped-call]
                network, config = pipeline.unet, dict(pipeline.scheduler.config)
        except Exception as error:  # diffusers, the hub and safetensors have no common error
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"denoiser 'pipeline': cannot load {weights!r} ({type(error).__name__}: {reason})"
            ) from None
        return cls(network, *_understood(weights, network, config))


def _understood(weights: str, network: Any, config: dict[str, Any]) -> tuple[UNetSpec, str, str, torch.Tensor | None]:
    """Spec, hash, prediction and timesteps of a network of diffusers with the config of its scheduler.

    Raises:
        UserError: it is conditional, not of 3 colours, or predicts something else.
    """
    if network.config.in_channels != 3 or network.config.out_channels not in (3, 6) or network.config.num_class_embeds:
        raise UserError(
            f"denoiser 'pipeline': {weights!r} must take 3 channels and no class, and give 3 channels or 6."
        )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise UserError(
            f"denoiser 'pipeline': {weights!r} predicts {prediction!r}, not one of {', '.join(_PREDICTIONS)}."
        )
    size = network.config.sample_size
    if not isinstance(size, int):
        raise UserError(f"denoiser 'pipeline': {weights!r} has no side in pixels (sample_size = {size!r}).")
    unet = {"block_out_channels": list(network.config.block_out_channels)}
    return UNetSpec(unet, size, 1), sha256_of_network(network), prediction, _timesteps(config)


def _timesteps(config: dict[str, Any]) -> torch.Tensor | None:
    """The timestep of a pipeline's schedule with the nearest log signal-to-noise, of each step 0..T; None: as here."""
    if not config:
        return None
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(config)  # type: ignore[no-untyped-call]
    theirs = scheduler.alphas_cumprod.double().numpy()
    ours = signal()
    if len(theirs) == len(ours) - 1 and np.allclose(theirs, ours[1:], rtol=1e-3):
        return None
    theirs, ours = np.clip(theirs, 1e-12, 1 - 1e-12), np.clip(ours, 1e-12, 1 - 1e-12)
    distance = np.abs(np.log(ours / (1 - ours))[:, None] - np.log(theirs / (1 - theirs))[None])
    return torch.from_numpy(distance.argmin(1))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
