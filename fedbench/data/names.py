"""Which columns of a table, or keys of an object, are user, item, rating and time: by what they are called, or as told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from fedbench.errors import DataError, UserError

USER = (
    *("userid", "user", "uid", "useridx", "userindex", "usernumber", "userno", "reviewerid", "customerid", "customer"),
    *("visitorid", "memberid", "member", "username", "playerid", "accountid", "usersha1", "profileid", "personid"),
    *("buyerid", "buyer", "clientid", "client", "shopperid", "shopper", "readerid", "reader", "listenerid", "listener"),
    *("viewerid", "viewer", "subscriberid", "account", "person", "profile", "player", "reviewer", "reviewername"),
    *("users", "steamid", "authorid", "sessionid", "session", "u"),
)
ITEM = (
    *(
        "itemid",
        "item",
        "iid",
        "itemidx",
        "itemindex",
        "itemnumber",
        "movieid",
        "movie",
        "artistid",
        "parentasin",
        "asin",
    ),
    *("productid", "product", "isbn", "bookid", "businessid", "trackid", "songid", "song", "gameid", "venueid"),
    *("locationid", "poiid", "animeid", "recipeid", "beerid", "articleid", "newsid", "appid", "storyid", "gmapid"),
    *(
        "placeid",
        "videoid",
        "postid",
        "courseid",
        "jobid",
        "eventid",
        "albumid",
        "hotelid",
        "restaurantid",
        "listingid",
    ),
    *("skuid", "sku", "filmid", "showid", "mangaid", "podcastid", "goodid", "items", "artist", "artistname", "track"),
    *("trackname", "album", "book", "film", "game", "gametitle", "gamename", "app", "business", "venue", "location"),
    *("poi", "place", "recipe", "anime", "article", "video", "course", "restaurant", "hotel", "artname", "booktitle"),
    *("movietitle", "producttitle", "productname", "itemname", "itemtitle", "title", "i"),
)
RATING = (
    *("rating", "ratings", "stars", "overall", "score", "bookrating", "weight", "plays", "playcount", "playcounts"),
    *("count", "preference", "hours", "userrating", "reviewrating", "starrating", "ratingvalue", "rate", "reviewscore"),
    *("playtimeforever", "hoursplayed", "numplays", "listencount", "listens", "value", "quantity", "amount", "label"),
    *("clicks", "views", "frequency", "r"),
)
TIME = (
    *("timestamp", "time", "ts", "unixreviewtime", "unixtime", "datetime", "date", "utctime", "createdat", "ratedat"),
    *(
        "timestampms",
        "eventtime",
        "reviewtime",
        "reviewdate",
        "sorttimestamp",
        "when",
        "posted",
        "dateadded",
        "addedat",
    ),
    *("visittime", "checkintime", "epoch", "utc", "t"),
)
"""What columns and keys are called, without capitals and signs; of several in one header the first one counts."""

ROLES = ("user", "item", "rating", "time")
NONE = "none"
"""Said of a rating or a time: there is none."""

_LIKE = {
    "user": re.compile(r"user|customer|member|buyer|reviewer|listener|player|visitor|shopper"),
    "item": re.compile(r"item|product|movie|book|song|track|artist|game|business|venue|recipe|article"),
    "time": re.compile(
        r"^(?!.*(birth|releas|publi|runtime|playtime|lifetime|updat|expir|join|regist)).*(time|date|stamp)"
    ),
}
"""What else a column is called, where no other has a name that is known."""


@dataclass(frozen=True)
class Picks:
    """What somebody says of the columns: the name of each, or its number from 1 on; ``none`` of a rating or a time."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None

    def __bool__(self) -> bool:
        return any(each is not None for each in astuple(self))

    def place(self, role: str, header: Sequence[str] | None, width: int, where: str) -> int | None:
        """The column of a role that was told, by place from 0 on; None where nothing was told, or ``none``.

        Raises:
            UserError: there is no such column.
        """
        said = getattr(self, role)
        if said is None or (said.lower() == NONE and role in ("rating", "time")):
            return None
        names = [name.strip() for name in header or ()]
        for candidates in (names, [name.partition(":")[0] for name in names], [name.lower() for name in names]):
            if candidates.count(said) == 1:
                return candidates.index(said)
        if said.isascii() and said.isdigit() and 1 <= int(said) <= width:
            return int(said) - 1
        has = f"it has: {', '.join(names)}" if header else f"it has no header and {width} columns, numbered from 1"
        raise UserError(f"{where}: no column {said!r} for --{role}; {has}.")

    def without(self, role: str) -> bool:
        """Whether a role was told to have no column."""
        said = getattr(self, role)
        return said is not None and said.lower() == NONE


UNTOLD = Picks()
"""Nothing is said of the columns."""


def plain(name: str) -> str:
    """A column's name as the lists above have it: without RecBole's type, capitals and signs."""
    return re.sub(r"[^a-z0-9]", "", name.partition(":")[0].lower())


def is_known(names: Iterable[str]) -> bool:
    """Whether one of these names stands for users or items."""
    return not {plain(name) for name in names}.isdisjoint({*USER, *ITEM})


def chosen(names: Iterable[str]) -> dict[str, str | None]:
    """Which of these names stand for user, item, rating and time, by role."""
    short: dict[str, str] = {}
    for name in names:
        short.setdefault(plain(name), name)

    def one(known: Sequence[str]) -> str | None:
        return next((short[each] for each in known if each in short), None)

    found = dict(zip(ROLES, map(one, (USER, ITEM, RATING, TIME)), strict=True))
    for role, like in _LIKE.items():
        if found[role] is None:
            taken = {name for name in found.values() if name is not None}
            near = [name for key, name in short.items() if like.search(key) and name not in taken]
            near = [name for name in near if plain(name).endswith("id")] or near if role != "time" else near
            found[role] = near[0] if len(near) == 1 else None
    if found["user"] is not None and found["item"] is None:
        others = [name for key, name in short.items() if key.endswith("id") and name not in found.values()]
        found["item"] = others[0] if len(others) == 1 else None
    return found


def missing(where: str, role: str, names: Iterable[str], what: str = "the header names no column") -> DataError:
    """The error for a table or an object that names no user or no item."""
    return DataError(
        f"{where}: {what} of {role}s; it has: {', '.join(names)}. Say which it is: --{role} NAME (or call it {role}_id)."
    )
