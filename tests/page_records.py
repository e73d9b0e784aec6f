"""Records with all that the page must show: both tracks, defenses, what diverged, failed or is missing, hostile names."""

from __future__ import annotations

from dataclasses import replace

from records import defended, record, scenario, untargeted, visual

from fedbench.leaderboard import Database
from fedbench.leaderboard.board import Board, make_board
from fedbench.runs.record import RunRecord, summarize_curve

HOSTILE = "<script>alert(1)</script>"
QUOTES = "\"'></script><img src=x onerror=alert(2)>&amp;\u2028"


def with_curve(made: RunRecord, er: float, hr: float) -> RunRecord:
    """The record with a curve of every K that the page offers; exposure grows with K."""
    curve = []
    for epoch in (10, 20, 30):
        point: dict[str, float] = {"epoch": epoch}
        point |= {f"er_{k}": min(1.0, er * epoch / 30 * k / 10) for k in (5, 10, 20, 30)}
        point |= {f"hr_{k}": hr * epoch / 30 for k in (5, 10, 20)}
        curve.append(point)
    return replace(made, **summarize_curve(curve, 30))


def constructed() -> list[RunRecord]:
    """Two datasets, models and ratios of targeted runs, and an untargeted track."""
    strengths = {"a-ra": 0.3, "random": 0.02, "pieck-uea": 0.4, "popular": 0.1}
    where = (("longtail-small", "mf", 0.05), ("longtail-small", "mf", 0.01), ("other-data", "ncf", 0.05))
    places = [dict(zip(("dataset", "model", "malicious_ratio"), place, strict=True)) for place in where]
    out = []
    for n, place in enumerate(places):
        home = {key: value for key, value in place.items() if key != "malicious_ratio"}
        for seed in range(3):
            noise = 0.004 * seed + 0.02 * n
            apart = 0.001 * seed**2  # seeds that differ by the very same are no proof
            out.append(with_curve(record(scenario(**home), seed), 0.0, 0.5 + noise))
            for attack, er in strengths.items():
                if attack == "popular" and n == 2:
                    continue  # missing
                status = "failed" if attack == "random" and n == 2 and seed == 2 else "ok"
                error = "ValueError: by design" if status == "failed" else None
                made = record(scenario(attack, **place), seed, status=status, error=error)
                out.append(
                    with_curve(made, er + noise + apart * (attack == "a-ra"), 0.48 + noise) if status == "ok" else made
                )
    fields = {"dataset": "longtail-small", "model": "mf"}
    known = {"family": "aggregation", "knowledge": ["malicious_ratio"]}
    for name, keeps in (("mean", 0.5), ("drop", 0.8), (HOSTILE, 0.6), (QUOTES, 0.9)):
        card = known if name == "mean" else {}
        for seed in range(3):
            out.append(with_curve(defended(name, seed=seed, fields=fields, **card), 0.0, 0.49 - 0.02 * keeps))
            for attack in ("a-ra", "pieck-uea"):
                status = "diverged" if name == "drop" and attack == "a-ra" and seed == 1 else "ok"
                made = defended(name, attack, seed, fields=fields, status=status, **card)
                out.append(with_curve(made, strengths[attack] * keeps, 0.47) if status == "ok" else made)
    for seed in range(2):
        for attack, hr in (("none", 0.04), ("popular", 0.03), ("random", 0.02)):
            out.append(untargeted(attack, seed, [hr, hr - 0.001 * seed], fields={"target": "random:3"}))
            out.append(untargeted(attack, seed, hr + 0.002, defense="mean", card=known, fields={"target": "random:3"}))
    return [replace(each, suite=QUOTES if each.attack == "a-ra" else "test") for each in out]


def with_doses(database: Database) -> Board:
    """The board of these records with findings, doses on two models, and prices, all made up but for the ids of runs."""
    board = make_board(database)
    runs = [row["run_id"] for row in database.rows("select run_id from runs where attack = 'a-ra' order by run_id")]

    def curve(attack: str, ers: tuple[float, ...], ratio: float | None, text: str) -> dict[str, object]:
        points = [
            {
                "ratio": at,
                "clients": round(900 * at),
                "er": er,
                "low": er - 5,
                "high": min(100.0, er + 5),
                "runs": runs[:3],
            }
            for at, er in zip((0.001, 0.01, 0.1), ers, strict=True)
        ]
        return {"attack": attack, "points": points, "half": {"ratio": ratio, "low": None, "high": None, "text": text}}

    curves = [
        curve("pieck-uea", (40.0, 80.0, 90.0), 0.0028, "0.28 % [0.22, 0.45]"),
        curve("a-ra", (10.0, 60.0, 95.0), 0.008, "0.8 %"),
        curve("popular", (1.0, 2.0, 60.0), 0.08, "8 %"),
        curve("random", (0.0, 1.0, 2.0), None, ">10 %"),
    ]
    places = [{"dataset": "longtail-small", "model": "mf"}, {"dataset": "other-data", "model": "ncf"}]
    prices = [("mean", 3.1, "x 3.1", 0.5), ("drop", None, "> x 20", 2.0), (HOSTILE, 1.2, "x 1.2", 1.0)]
    board.data["findings"] = [
        {
            "text": "On mf pieck-uea needs the fewest clients.",
            "basis": "paired tests",
            "runs": runs[:2],
            "detail": f"0.3 % of 900, {HOSTILE} more.",
            "counter": "a-ra.",
        },
        {
            "text": f"No defense does, not even {HOSTILE}.",
            "basis": "counted",
            "runs": runs,
            "detail": f"{HOSTILE} twice.",
            "counter": None,
        },
    ]
    panels = [place | {"users": 900, "curves": own} for place, own in zip(places, (curves, curves[1:]), strict=True)]
    board.data["doses"] = {"k": 10, "ladder": [0.001, 0.01, 0.1], "panels": panels}
    board.data["prices"] = [
        places[0] | {"defense": name, "factor": factor, "text": text, "attack": "a-ra", "hr_loss": loss}
        for name, factor, text, loss in prices
    ]
    return board


SEEN = {"image_psnr": 36.0, "image_cosine": 0.5}
TOLD = {
    "clean_similarity_mean": 0.9, "clean_similarity_min": 0.6, "detection_auc": 0.95, "detection_recall_zero_fp": 0.7,
}  # fmt: skip


def with_images() -> list[RunRecord]:
    """psmu-v and popularity-image within eps 4 and 8, psmu, which shows no image, and two purifiers; two seeds."""
    ers = {("psmu-v", 4): 0.5, ("psmu-v", 8): 0.7, ("popularity-image", 4): 0.1, ("popularity-image", 8): 0.2}
    out = []
    for seed in range(2):
        wave = 0.02 * seed
        out += [visual("none", seed, ndcg=0.04), visual("psmu", seed, 0.3 + wave)]
        for (name, eps), er in ers.items():
            out.append(visual(name, seed, er + wave, 0.03, eps=eps, images=SEEN | {"image_change": float(eps)}))
        for defense, keeps, ndcg in (("gentle", 0.5, 0.038), ("harsh", 0.1, 0.02)):
            out.append(visual("none", seed, ndcg=ndcg, defense=defense))
            for (name, eps), er in ers.items():
                out.append(visual(name, seed, keeps * (er + wave), eps=eps, defense=defense, images=TOLD))
    return out
