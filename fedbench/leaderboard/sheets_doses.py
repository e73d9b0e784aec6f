"""The tables of dose and response: what attacks need, and what defenses make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedbench.leaderboard.doses import Dose, percent
from fedbench.leaderboard.loss_doses import LossDoseRow, LossPanel
from fedbench.leaderboard.paired import ALPHA
from fedbench.leaderboard.ranking_doses import APART, DoseRow, Panel, PriceRow, order_changes
from fedbench.leaderboard.separation import Ranking
from fedbench.leaderboard.sheets import LOST, Sheet, estimate, number, rank_text, share


def panel_sheet(panel: Panel, k: int) -> Sheet:
    """The attacks of one dataset and model by their half-exposure dose."""
    rows = [
        (
            _place(row),
            row.attack,
            str(row.half),
            mean_dose(row),
            share(row.area),
            number(row.peak),
            number(row.hr),
            "-" if row.beats is None else str(row.beats),
        )
        for row in panel.ranking
    ]
    headings = ("rank", "attack", "half-exposure dose", "mean dose", f"ER@{k}", "peak", f"HR@{k}", "beats")
    return Sheet(
        f"Doses on {panel.name}",
        headings,
        rows,
        {row.attack: row.runs for row in panel.ranking},
        spare=("peak", f"HR@{k}"),
        caption=_caption(panel, k),
        told=panel.ranking.separation,
    )


def overall_sheet(ranking: Ranking[DoseRow], panels: Sequence[Panel], k: int) -> Sheet:
    """The attacks over all datasets and models."""
    rows = [
        (
            _place(row),
            row.attack,
            mean_dose(row),
            number(100 * row.reached, digits=0),
            share(row.area),
            "-" if row.beats is None else str(row.beats),
            row.knowledge,
            f"{row.panels} of {len(panels)}",
        )
        for row in ranking
    ]
    headings = ("rank", "attack", "mean dose", "reached", f"ER@{k}", "beats", "knows", "on")
    told = ranking.separation
    apart = sum(p <= ALPHA and bool(each.estimate) for each, p in told.pairs.values())
    text = (
        "mean dose: geometric mean over datasets, models and seeds of the half-exposure dose, a dose beyond those that were"
        " run counting as the last of them (>=), one below them as the first (<=; ~: some are this, some that); reached: in"
        " how many percent of these the response reaches half of the users, so that there is one."
        f" {apart} of {len(told.pairs)} pairs are told apart."
    )
    return Sheet(
        "Attacks by half-exposure dose, without a defense",
        headings,
        rows,
        {row.attack: row.runs for row in ranking},
        spare=("on",),
        caption=text,
        told=told,
    )


def price_sheet(panel: str, rows: Sequence[PriceRow], k: int) -> Sheet:
    """The defenses of one dataset and model by what they make of the attackers' price."""
    attacks = list(dict.fromkeys(name for row in rows for name in row.factors))[:2]
    table = [
        (
            row.defense,
            str(row.worst[1]),
            row.worst[0],
            "-" if row.worst_adaptive is None else str(row.worst_adaptive[1]),
            number(row.hr_loss, signed=True),
            str(row.seeds),
            *(str(row.factors[name]) if name in row.factors else "-" for name in attacks),
        )
        for row in rows
    ]
    headings = ("defense", "price", "worst attack", "adaptive", f"HR@{k} loss", "seeds", *attacks)
    return Sheet(
        f"Prices on {panel}",
        headings,
        table,
        {row.defense: row.runs for row in rows},
        spare=tuple(attacks),
        caption="price: by which factor the defense raises the half-exposure dose, for the attack whose dose it raises least"
        " (median over seeds); >=: at least, for the dose lies beyond those that were run. 1: the attack needs as many"
        " clients as without a defense.",
    )


def loss_dose_sheet(panel: LossPanel, h: int) -> Sheet:
    """The untargeted attacks of one dataset and model by the dose that takes a tenth of HR@K."""
    rows = [
        (
            _place(row),
            row.attack,
            str(row.tenth),
            str(row.half),
            mean_dose(row),
            estimate(row.loss, LOST),
            str(len(row.seeds)),
            "-" if row.beats is None else str(row.beats),
        )
        for row in panel.ranking
    ]
    told = panel.ranking.separation
    apart = sum(p <= ALPHA and bool(each.estimate) for each, p in told.pairs.values())
    ladder = ", ".join(percent(ratio) for ratio, _ in panel.ladder)
    return Sheet(
        f"Untargeted: doses on {panel.name}",
        ("rank", "attack", "takes a tenth", "takes half", "mean dose", f"HR@{h} loss %", "seeds", "beats"),
        rows,
        {row.attack: row.runs for row in panel.ranking},
        spare=("seeds",),
        caption=f"takes a tenth, half: the share of malicious clients, in percent of the {panel.users:,} users, at which that"
        f" much of the clean twin's HR@{h} is lost; median over seeds. mean dose: the geometric mean over seeds of the"
        f" doses that take a tenth, by which rows stand and are tested; a dose beyond those that were run ({ladder} %) counts"
        " as the last of them (>=), one below them as the first (<=; ~: some seeds this, some that)."
        f" HR@{h} loss: mean over these doses. {apart} of {len(told.pairs)} pairs are told apart.",
        told=told,
    )


def _place(row: DoseRow | LossDoseRow) -> str:
    return "unverified" if row.unverified else rank_text(row.rank, row.last_rank)


def mean_dose(row: DoseRow | LossDoseRow) -> str:
    """The geometric mean over seeds and panels: ``0.26 %``; ``>=1.3 %`` with a bound (:func:`~.doses.mean_bound`)."""
    return str(Dose(row.mean_dose, row.bound))


def _caption(panel: Panel, k: int) -> str:
    ladder = ", ".join(percent(ratio) for ratio, _ in panel.ladder)
    seeds = max((len(row.curve.seeds) for row in panel.ranking if row.curve), default=0)
    confidence = {row.half.confidence for row in panel.ranking if row.half and row.half.confidence}
    interval = (
        f", in brackets an interval that covers the median with {' or '.join(f'{each:g} %' for each in sorted(confidence))}"
        " probability, by the number of seeds"
        if confidence
        else ""
    )
    text = (
        f"half-exposure dose: share of malicious clients, in percent of the {panel.users:,} users, at which half of the users"
        f" are shown the target; median over {seeds} seeds, each with a target of its own{interval}. mean dose: the"
        " geometric mean over seeds, by which rows stand and are tested; a dose beyond those that were run counts as the last"
        " of them (>=), one below them as the first (<=; ~: some seeds this, some that)."
        f" ER@{k}: mean over the doses ({ladder} %) of the mean over the last quarter of training."
        f" {panel.apart} of {panel.pairs} pairs are told apart, {panel.told} of the {panel.far} whose doses differ by a"
        f" factor of {APART:g} or more"
    )
    if (resolution := panel.ranking.separation.resolution) is not None:
        range_of_doses = math.log10(panel.ladder[-1][1] / panel.ladder[0][1])
        finest = f"{10**resolution:.1f}" if resolution < range_of_doses else "more than the doses span"
        text += f"; smallest factor that can be resolved: {finest}"
    swaps = {each: order_changes(panel.ranking.rows, each) for each in ("end", "peak")}
    return text + (
        f". By ER@{k} at the end of training {swaps['end'][0]} of {swaps['end'][1]} pairs would change their order, at its"
        f" highest {swaps['peak'][0]}."
    )
