"""GDMPD: images are cleaned by a diffusion model, guided by the image itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedbench.defenses.diffusion import DiffusionParams, DiffusionPurifier, known_denoiser
from fedbench.entries.cards import DefenseCard, DefenseFamily
from fedbench.vision.denoisers import DENOISERS, Denoiser
from fedbench.vision.diffusion import Purification

_TOIS = "Manipulating Visually-aware Federated Recommender Systems and Its Countermeasures, TOIS"


class LearnedParams(DiffusionParams):
    """Which denoiser."""

    denoiser: Annotated[str, AfterValidator(known_denoiser)] = Field(
        "ddpm-small", description="entry of `fedbench list denoisers` [TOIS: guided-diffusion-256]"
    )
    denoiser_path: str | None = Field(
        None, description="folder, file or hub name of its weights, for denoisers that do not bring theirs"
    )
    side: int | None = Field(
        None,
        ge=1,
        description="pixels at which it works; None: the denoiser's own, or the images' if it takes any [TOIS: 256]",
    )


class UnguidedGdmpd(DiffusionPurifier):
    """GDMPD without guidance: noise up to ``t_star``, and DDPM's way back (TOIS, section 5, Algorithm 4 with lambda = 0)."""

    card = DefenseCard(
        name="gdmpd-unguided",
        title="Diffusion purification and detection, unguided",
        paper=_TOIS,
        family=DefenseFamily.PURIFICATION,
        notes="Stands against image attacks that do not know it; falls to psmu-v-adaptive, which does, from eps 16 on"
        " (leaderboard/visual). t_star is not stated; 1,000, the printed number of steps, would return images unrelated"
        " to the input.",
    )

    Params = LearnedParams
    params: LearnedParams

    def denoiser(self) -> Denoiser:
        return DENOISERS.get(self.params.denoiser).make(self.params.denoiser_path)

    def purification(self) -> Purification:
        return replace(super().purification(), side=self.params.side)


class Gdmpd(UnguidedGdmpd):
    """Guided Diffusion Model for Purification and Detection (TOIS, section 5, Algorithm 4).

    Noise is added up to ``t_star``; every step back is drawn to the equally noised input by ``-lambda_t Sigma_t grad D``,
    D the squared error. Then features before and after are compared (see :class:`Purifier`).

    Departures, each forced (formulas in :mod:`fedbench.vision.diffusion`):

    - the guidance has a minus: as printed (eqs. 25-26) it pushes away from the input;
    - ``beta_t`` has its ``+ beta_1``, which is lacking in print;
    - ``t_star`` 150 of 1,000, D summed over an image's pixels and lambda 10, capped: all 1,000 steps with lambda 1,000 on a
      mean squared error give an image that has nothing to do with the input, and lambda 1,000 on a sum diverges;
    - the way back is respaced: a catalogue would take hours on a processor else, and days with a large denoiser;
    - the published weights' file name is that of a class-conditional model; unconditional ones are meant. The default is a
      small network that comes along;
    - detection compares the pair of features, where eq. 27 takes the cosine of their difference; its threshold is set by
      the catalogue's own images, for ImageNet is not at hand.
    """

    card = DefenseCard(
        name="gdmpd",
        title="Guided diffusion purification and detection",
        paper=_TOIS,
        family=DefenseFamily.PURIFICATION,
        notes="Stands against image attacks that do not know it; falls to psmu-v-adaptive, which does (leaderboard/visual)."
        " Sign of the guidance corrected; t_star, reduction and cap of the guidance chosen here: the printed reading"
        " returns images unrelated to the input.",
    )

    class Params(LearnedParams):
        """Parameters."""

        guidance: float = Field(10.0, ge=0, description="lambda, of a sum over pixels [TOIS: 1,000, of a mean; ours]")
        guide_noise: Literal["chain", "shared", "fresh"] = Field(
            "chain",
            description="noised inputs: one Markov path, one noise vector, or new noise each step [open in TOIS]",
        )
        guide_reduction: Literal["sum", "mean"] = Field(
            "sum", description="of an image's squared errors [ours; arXiv 2205.14969: mean]"
        )
        cap: float | None = Field(
            0.1,
            gt=0,
            le=1,
            description="a step of the schedule goes at most this share of the way to the guide; None: no cap [ours]",
        )

    params: Gdmpd.Params

    def purification(self) -> Purification:
        p = self.params
        return replace(
            super().purification(),
            guidance=p.guidance,
            guide_noise=p.guide_noise,
            guide_reduction=p.guide_reduction,
            cap=p.cap,
        )
