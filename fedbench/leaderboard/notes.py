"""How to read the tables of the leaderboard."""

from __future__ import annotations

from fedbench.leaderboard.sheets import hit_cut

_INTERVAL = (
    "The interval is for other seeds on these scenarios: the t interval over the means of the seeds, since all scenarios of a"
    " seed share what it draws. A single seed has none."
)
_SEPARATION = (
    "rank: the places that the runs leave open, 1-4 for those from 1 to 4: the first is one more than the number of entries"
    " that are significantly better, the last leaves room for those that are significantly worse. All true ranks lie in"
    " these intervals at once in about 95 % of such tables (confidence sets of Mogstad and others, 2024). Entries that the"
    " runs cannot tell apart share ranks; rows stand by their means. beats: how many entries it is significantly better"
    " than. unverified: an entry that does not come with fedbench, with runs in process, where its code could reach the"
    " results.",
    "Two entries are compared on the runs that both have, paired by scenario and seed, by a t test over the means of the"
    " seeds: the seed is what was drawn anew, and scenarios, ratios and targets that share one are no further draws;"
    " significant is 5 % over all pairs of the table (Holm). So of two equal entries, at most about 5 % of such tables tell"
    " them apart (leaderboard/null/README.md, with real runs of equal entries). A scenario in which two have a single seed in"
    " common does not count beside others with several. Where all n seeds differ by the same (100 against 0 %), p is 2 /"
    " 4^n.",
    "smallest difference that can be resolved: a true difference of this size between two entries would be found in about"
    " 80 % of repetitions with other seeds; the median over pairs of (t(1 - 0.025 / pairs) + t(0.8)) standard errors.",
    "mean rank: of the places in each scenario.",
    "broken: runs that diverged, or whose HR@10 at the end fell below that of recommending by popularity (where that is not"
    " known, or not reached without attack and defense either: below half of what the run of that seed without both has)."
    " refused uploads: those that were not finite, which no server takes. warned: runs that carry a warning, which is named"
    " below.",
)


def dose_notes(k: int) -> list[str]:
    """On the tables of doses; ``k``: of ER@K."""
    return [
        "dose: malicious clients / genuine users. Runs whose targets are drawn anew with every seed and that go over several"
        " doses are compared by the dose that they need, and are in no other table of attacks. half-exposure dose: where"
        f" ER@{k} over the last quarter of training reaches 50 %, of the isotonic response (the non-decreasing one that is"
        " nearest), linear in the logarithm of the dose between two doses. The median over seeds, with the distribution-free"
        " interval of scipy.stats.quantile_test, at the confidence that the seeds allow. <=: the smallest dose suffices"
        " already. >: the response is below half at the largest (single doses may lie above, as where more clients break the"
        " recommender); such a dose is beyond all others in the median, and counts as the largest in a"
        " test, so that two attacks are told apart by no more than was seen. Two are compared by the differences of the"
        " logarithms of the same seed.",
        f"ER@{k} in the tables of doses: mean over the doses that any attack ran there, the area under its curve; doses that"
        " were not run have what the isotonic response says: exposure is nearly the same on both sides, but where it is said"
        " under What is lacking. Over the last"
        " quarter of training and not at its end or its highest, since some attacks swing by tens of points between epochs:"
        " the end depends on when one stops, and an attacker cannot know when the highest is reached. peak: mean over doses"
        " of the highest.",
        "price: dose under the defense / dose without, of the same seed; the median over seeds, for the attack for which it"
        " is least. Attacks that reach half of the users at no dose without a defense say nothing of it.",
    ]


def targeted_notes(k: int, defended: bool) -> list[str]:
    """On the tables of attacks that promote.

    Args:
        k: of ER@K. defended: whether there are tables of defenses.
    """
    h = hit_cut(k)
    notes = [
        f"ER@{k}: share of users, who have not interacted with a target, to whom it is shown; mean over scenarios of the mean"
        f" over seeds. {_INTERVAL}",
        "peak and tail: the highest value of a run, and its mean over the last quarter of training; averaged likewise.",
        f"HR@{h} change: attacked run minus its clean twin of the same seed, in points. without twin: runs that have none.",
        f"HR@{h}: under the attack; none is left to a run that diverged.",
        f"order: by the mean ER@{k}, in which a broken run counts as no exposure: who ruins a recommender promotes nothing."
        f" peak and tail are over the runs that are not broken, HR@{h} change over those that ended well. Compared are the"
        " scenarios that at least half of the attacks ran; an attack that"
        " lacks one of them has no rank.",
        *_SEPARATION,
        "first: (dataset, model) pairs of which it has all scenarios and no other such attack has a higher mean.",
    ]
    if defended:
        notes += [
            f"Defenses: reduction is ER@{k} of the undefended twin minus the defense's own; loss, clean, is HR@{h} without"
            " attack and defense minus HR with the defense alone (of a defense that is given the share of attackers, the mean"
            f" over its shares); loss, attacked, is HR@{h} of the undefended twin minus the defense's own; net is reduction"
            " minus the larger of the two means; pairs of the same seed. The larger, and not the sum: what a defense always"
            " takes would count twice. Against the twin, and not the clean run: what the attack takes is not charged to the"
            " defense. Compared are the"
            " scenarios (attack, dataset, model, ratio ...) that at least half of the defenses ran; a defense that lacks one,"
            " or a run without an attack, has no rank.",
            "A run that is broken under a defense prevents nothing: it counts with the exposure of its undefended twin, or"
            " with"
            " its own where that is higher. Where the twin is broken there is nothing to prevent, and the pair does not"
            " count."
            f" A run that diverged, attacked or not, counts as a loss of the whole HR@{h}. broken, broken clean: of attacked"
            " runs, and of those without an attack.",
            "Two nets are compared by the differences of the reductions and of the losses of the same seed, of which each"
            " seed"
            " makes one number. mean rank: by reduction minus the loss in the same place.",
            "front: no other ranked defense, nor having none (0 reduction at 0 loss), is at least as good in both and better"
            " in one, by the means.",
            f"ER@{k} left: at the end of training; at peak: the highest ER@{k} during training. A defense that ends near 0"
            " after a high peak was overrun early. worst attack: the one that keeps the most (fixed: of those that do not"
            " know the defense; adaptive: of those that do); least prevented: the one whose"
            f" ER@{k} falls least.",
            "ms a round: extra training time of a round against the undefended twin on the same hardware, median over pairs.",
            "Attacks under defenses: all numbers of a row are over the same scenarios, those that at least half of the"
            " defenses that faced the attack ran; defenses that lack one are left out. The best defense is the one with the"
            f" highest net on these scenarios (by the least ER@{k}, one that ruins the recommender could win). It is chosen"
            " for each attack and after the fact, which is optimistic for the server. A chain counts for the families of"
            " all its parts.",
        ]
    return notes


def untargeted_notes(h: int, defended: bool) -> list[str]:
    """On the tables of attacks that degrade.

    Args:
        h: the K of HR@K. defended: whether there are tables of defenses.
    """
    notes = [
        f"HR@{h} loss % (untargeted): the share of the clean twin's HR@{h} that the attacked run of the same seed lacks,"
        f" 100 (1 - attacked / clean); NDCG@{h} loss % likewise. Mean over scenarios of the mean over seeds."
        f" {_INTERVAL}",
        "It is measured at the evaluation that is best on validation items (the highest HR@5 by full ranking), of each run"
        " its own; where a protocol has no such items, at the end of training.",
        "loss at the end %: the same at the last evaluation, which a server gets that cannot choose by clean validation"
        " items.",
        f"HR@{h} and clean HR@{h}: attacked runs and their clean twins, in percent, where the loss is measured.",
        "A run that diverged has earned nothing, and counts as a loss of 0 %: a server that finds its model not to be finite"
        " knows that it is attacked, and goes back to one that is. A broken run that is finite has earned what it took.",
        "order (untargeted): by the mean loss. Compared are the scenarios that at least half of the attacks ran and that"
        " have a clean twin; an attack that lacks one of them has no rank.",
        *_SEPARATION,
        "without twin: runs whose clean twin is missing, diverged or failed, or finds nothing; no loss can be told.",
    ]
    if defended:
        notes += [
            f"Defenses against untargeted attacks: all shares are of the baseline, the HR@{h} without attack and defense of"
            " the same seed. Compared are the scenarios that at least half of the defenses ran; a defense that lacks one, or"
            " a run without an attack, has no rank.",
            f"recovered %: HR@{h} under attack with the defense minus that without it; cost %: the baseline minus HR@{h} with"
            " the defense alone; net: recovered minus cost. A defended run that diverged has nothing left; where the run"
            " without the defense diverged there is nothing to recover, and the pair does not count.",
            "front (untargeted): no other ranked defense, nor having none (0 recovered at 0 cost), is at least as good in"
            " both and better in one, by the means.",
            f"HR@{h} loss left %: what the attacked and defended run lacks of the baseline. worst attack: the one that leaves"
            " the highest loss; least recovered: the one against which the defense brings back least.",
            "net at the end, left at the end %: net and loss left at the last evaluations of all runs. A server that chooses"
            " by clean validation items may stop before the damage; a rank says nothing of what comes after.",
            "ms a round (untargeted): extra training time of a round against the undefended twin on the same hardware,"
            " median over pairs.",
            "attack by defense: what is lost of the baseline, without a defense and under each; within a row all over the"
            " same scenarios, those that at least half of the defenses ran.",
        ]
    return notes


def demotion_notes(k: int, defended: bool) -> list[str]:
    """On the tables of attacks that demote.

    Args:
        k: of DR@K. defended: whether there are tables of defenses.
    """
    h = hit_cut(k)
    notes = [
        f"DR@{k} (demotion): of the users to whom the clean twin of the same seed shows a target at the end, the share to"
        " whom the attacked run does not; mean over the targets that are shown to somebody, then over seeds and scenarios."
        f" {_INTERVAL}",
        f"ER@{k}, clean ER@{k}: exposure of the targets in these runs and in their clean twins. It may fall although nobody"
        " loses a target, and others may be shown it instead: DR counts those who lose it.",
        f"HR@{h} change: as for attacks that promote. without twin: runs whose clean twin is missing, or shows no target to"
        " anybody, or is of a record that does not say to whom.",
        f"order (demotion): by the mean DR@{k}, in which a broken run counts as 0: who ruins a recommender demotes nothing."
        " Compared are the scenarios that at least half of the attacks ran and that have such a twin.",
        *_SEPARATION,
    ]
    if defended:
        notes += [
            f"Defenses against demotion: reduction is DR@{k} of the undefended twin minus the defense's own, each against the"
            " clean twin under the same defense; losses, net, ranks, front and columns of attacks are as for attacks that"
            " promote.",
        ]
    return notes


def visual_notes(k: int, defended: bool) -> list[str]:
    """On the tables of attacks that promote on recommenders that read images.

    Args:
        k: of ER@K. defended: whether there are tables of defenses.
    """
    notes = [
        f"Visual: recommenders that look at images of items. ER@{k}, peak, tail, order and ranks are as for attacks that"
        " promote. eps is how far an image that an attack shows may lie from the original, in steps of 8-bit pixels: it is"
        " part of the scenario, so that two attacks are compared within the same bounds only.",
        "An attack that shows no image has no bound, and so no rank where bounds are taken together: it stands beside the"
        " others in the tables of attacks within one eps, where an attack with images counts with that bound alone.",
        "NDCG@20 loss %: the share of the clean twin's NDCG@20 that the attacked run of the same seed lacks, over the runs"
        " that ended well.",
        "max change, PSNR dB, cosine: of the images that were shown last of the targets, against the original ones: largest"
        " change of a pixel, of 255; peak signal-to-noise ratio; cosine of the extractor's features. Means over runs.",
        *_SEPARATION,
    ]
    if defended:
        notes += [
            f"Defenses of images: reduction is ER@{k} of the undefended twin minus the defense's own, in points; loss is the"
            " share, in percent, of the NDCG@20 without attack and defense that is lost with the defense alone (clean), or"
            " that"
            " the attacked run has less than its undefended twin (attacked); net is reduction minus the larger. Runs that"
            " diverged, ranks, front and columns of attacks are as for the other defenses.",
            "clean cosine: of the features of the clean images before and after the defense, mean over the images; least: of"
            " the one that it changes most. A defense that forgets what the images show has a low one, whatever it prevents.",
            "AUC, recall at no false alarm %: how well that cosine tells the images that were shown last of the targets from"
            " the clean ones that no threshold was set by. flagged %, false alarms %: of both, what the defense flags by its"
            " own threshold.",
        ]
    return notes
