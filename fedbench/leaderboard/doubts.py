"""What may mislead in the records of a leaderboard, a sentence each: runs that count less or not, or not alike."""

from __future__ import annotations

import json

from fedbench.leaderboard.database import Database, Row


def pooled(database: Database) -> list[str]:
    """Fields of the protocol in which runs differ that stand in the same rows, on a dataset with a model."""
    query = (
        "select dataset, model, protocol, list(distinct protocol_params order by protocol_params) as params from headline"
        " where attack <> 'none' and not superseded group by all having count(distinct protocol_params) > 1 order by all"
    )
    out = []
    for row in database.rows(query):
        params = [json.loads(text) for text in row["params"]]
        for name in sorted(set().union(*params)):
            values = sorted({json.dumps(each.get(name)) for each in params}, key=lambda text: (len(text), text))
            if len(values) > 1:
                out.append(
                    f"{row['dataset']} {row['model']}: runs with {len(values)} values of {name} ({', '.join(values)}) stand"
                    f" in the same rows; --only {name}={values[0].strip(chr(34))} leaves those of one."
                )
    return out


def superseded(database: Database) -> list[Row]:
    """Runs of older versions of a method, which are not ranked: ``kind``, ``name``, ``version``, ``newest``, ``runs``."""
    kinds = [
        f"select '{kind}' as kind, {kind} as name, coalesce({kind}_version, 1) as version,"
        f" max(coalesce({kind}_version, 1)) over (partition by {kind}) as newest from runs"
        for kind in ("attack", "defense", "model")
    ]
    return database.rows(
        f"select kind, name, version, newest, count(*) as runs from ({' union all '.join(kinds)})"
        " where version < newest group by all order by all"
    )


def without_score(database: Database) -> list[str]:
    """Diverged and failed runs, and damaged files."""
    out = []
    bad = database.rows(
        "select status, attack, defense, dataset, model, malicious_ratio, count(*) n, min(error) e from headline"
        " where status <> 'ok' and not superseded group by all order by all"
    )
    for each in bad:
        first = (each["e"] or "").splitlines()[:1]
        under = "" if each["defense"] == "none" else f" under {each['defense']}"
        out.append(
            f"{each['status']}: {each['n']} of {each['attack']}{under} on {each['dataset']} {each['model']}"
            f" at {100 * each['malicious_ratio']:g} % ({''.join(first)})."
        )
    out += database.left_out
    return out + [f"left out, no whole record: {name} ({reason})." for name, reason in database.found.damaged.items()]


def doubtful(database: Database) -> list[str]:
    """Runs that are broken without having diverged, uploads that were refused, and what runs warn of."""
    place = "attack, defense, dataset, model, malicious_ratio"
    rows = database.rows(
        f"select '' as text, {place}, count(*) as n, 0 as refused,"
        " round(100 * min(hr_at_10), 2) as worst, round(100 * max(hr_at_10), 2) as best,"
        " round(100 * min(broken_below), 2) as lowest, round(100 * max(broken_below), 2) as highest from headline"
        " where broken and status = 'ok' and not superseded group by all union all"
        f" select '', {place}, count(*), sum(refused_uploads), null, null, null, null from headline"
        " where refused_uploads > 0 and not superseded group by all union all"
        f" select text, {place}, count(*), 0, null, null, null, null from"
        f" (select unnest(warnings) as text, {place} from headline where not superseded)"
        " group by all order by all"
    )
    out = []
    for row in rows:
        under = "" if row["defense"] == "none" else f" under {row['defense']}"
        where = f"{row['attack']}{under} on {row['dataset']} {row['model']} at {100 * row['malicious_ratio']:g} %"
        runs = "1 run" if row["n"] == 1 else f"{row['n']} runs"
        if row["text"]:
            out.append(f"warning of {runs} of {where}: {row['text']}")
        elif row["refused"]:
            out.append(f"refused: {row['refused']} uploads that were not finite, in {runs} of {where}.")
        else:
            left, below = _range(row["worst"], row["best"]), _range(row["lowest"], row["highest"])
            out.append(f"broken: {runs} of {where}, whose HR@10 at the end is {left} %, below {below} %.")
    return out


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def without_popularity(database: Database) -> list[str]:
    """How many runs there are of which it is not known what recommending by popularity finds."""
    (unknown,) = database.rows(
        "select count(*) as n from headline where popularity_hr is null and hr is not null and not superseded"
    )
    if not unknown["n"]:
        return []
    return [
        f"popularity: of {unknown['n']} runs it is not known what recommending by popularity finds; such a run is broken"
        " when it has lost half of the HR@10 that the run of its seed without attack and defense has."
    ]
