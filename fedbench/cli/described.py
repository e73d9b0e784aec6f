"""What entries of every kind say of themselves, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedbench.entries.cards import Parameters
    from fedbench.entries.registry import Registry

KINDS = ("attacks", "defenses", "models", "datasets", "suites", "protocols", "extractors", "denoisers")


def describe(kind: str, name: str) -> dict[str, Any]:
    """What ``fedbench show`` prints of an entry, as plain data: facts, and tables as lists of rows."""
    return _DESCRIBERS[kind](name)


def summary(kind: str, name: str) -> dict[str, Any]:
    """The card of an entry alone, as ``fedbench list`` prints it."""
    return _SUMMARIES[kind](name)


def names(kind: str, aliases: bool = False) -> list[str]:
    """What there is of a kind; of datasets also what was imported here, and with ``aliases`` their other names."""
    if kind == "suites":
        from fedbench.scenarios.suite import suite_names

        return suite_names()
    if kind == "protocols":
        from fedbench.scenarios import protocols

        return protocols.names()
    if kind == "datasets":
        from fedbench.data import DATASETS, ENTRIES
        from fedbench.data.library import imported_names

        own = [*(entry.name for entry in ENTRIES), *DATASETS.names(), *imported_names()]
        return list(dict.fromkeys([*own, *(alias for entry in ENTRIES for alias in entry.aliases if aliases)]))
    return _registry(kind).names()


def _registry(kind: str) -> Registry[Any]:
    from fedbench.attacks import ATTACKS
    from fedbench.defenses import DEFENSES
    from fedbench.models import MODELS
    from fedbench.vision.denoisers import DENOISERS
    from fedbench.vision.extractors import EXTRACTORS

    registries: dict[str, Registry[Any]] = {
        "attacks": ATTACKS,
        "defenses": DEFENSES,
        "models": MODELS,
        "extractors": EXTRACTORS,
        "denoisers": DENOISERS,
    }
    return registries[kind]


_FACTS = {
    "attacks": ("goal", "channel", "clients", "knowledge", "models"),
    "defenses": ("family", "knowledge", "assumes", "models"),
    "models": (),
}
"""What cards of a kind say beside what all say."""


def _card(kind: str, name: str) -> dict[str, Any]:
    from fedbench.entries.verified import verified_by

    card = _registry(kind).get(name).card
    return {
        kind.removesuffix("s"): name,
        "title": card.title,
        "paper": card.paper,
        **{fact: _plain(getattr(card, fact)) for fact in _FACTS[kind]},
        **({"models": ["any"]} if "models" in _FACTS[kind] and card.models is None else {}),
        "version": card.version,
        "verified_by_its_authors": verified_by(kind, name, card.version) or "no",
        "notes": card.notes,
    }


def _plain(value: Any) -> Any:
    """A fact of a card: words for members of enumerations, and sets in order."""
    if isinstance(value, frozenset):
        return sorted(map(str, value))
    return str(value) if isinstance(value, str) else value


def _network(kind: str, name: str) -> dict[str, Any]:
    cls = _registry(kind).get(name)
    own = (
        {"features": cls.features, "side": cls.side}
        if kind == "extractors"
        else {"side": cls.size if isinstance(cls.size, int) else None}
    )
    return {
        kind.removesuffix("s"): name,
        "title": cls.card.title,
        "paper": cls.card.paper,
        **own,
        "here": _here(cls),
        "version": cls.card.version,
        "notes": cls.card.notes,
    }


def _here(cls: Any) -> str:
    """Whether the packages and the weights of a network are on this machine."""
    from importlib.util import find_spec

    if not all(map(find_spec, cls.packages)):
        return "no: pip install '.[vision]' in a checkout of fedbench"
    download = getattr(cls, "download", None)
    if download is not None:
        from fedbench.vision.weights import weights_here

        if weights_here(download) is None:
            return f"no: {download.size / 1e6:,.0f} MB of weights are downloaded on first use"
    return f"once weights names {needs}" if (needs := getattr(cls, "needs", "")) else "yes"


def _dataset(name: str) -> dict[str, Any]:
    from fedbench.data import resolve

    entry = resolve(name)
    return {
        "dataset": entry.name,
        "title": entry.title,
        "users": entry.users,
        "items": entry.items,
        "interactions": entry.interactions,
        "timestamps": entry.timestamps,
        "splits": list(entry.splits),
        "source": entry.source,
        "licence": entry.licence,
        "citation": entry.citation,
        "traps": list(entry.traps),
        "more": f"fedbench data info {entry.name}",
    }


def _suite(name: str) -> dict[str, Any]:
    from fedbench.scenarios.suite import load_suite

    suite = load_suite(name)
    planned = suite.plan()
    return {
        "suite": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "version": suite.version,
        "scenarios": len(planned),
        "runs": sum(len(each.seeds) for each in planned),
        "description": " ".join(suite.description.split()),
        "file": suite.file,
    }


def _protocol(name: str) -> dict[str, Any]:
    from fedbench.scenarios import protocols

    return {"protocol": name, "title": protocols.TITLES[name]}


_SUMMARIES: dict[str, Callable[[str], dict[str, Any]]] = {
    **{kind: partial(_card, kind) for kind in _FACTS},
    **{kind: partial(_network, kind) for kind in ("extractors", "denoisers")},
    "datasets": _dataset,
    "suites": _suite,
    "protocols": _protocol,
}


def _describe_entry(kind: str, name: str) -> dict[str, Any]:
    registry = _registry(kind)
    record = summary(kind, name)
    cls = registry.get(name)
    record |= _of_images(kind, cls)
    described = {**record, "source": registry.origin(name), "parameters": _parameters(cls.Params)}
    return described | _by_default(cls) if kind == "models" else described


_TRAINING = ("learning_rate", "epochs", "split", "loss", "aggregation", "clients_per_round", "negatives_per_positive")
"""Fields of the protocol that a model is shown with."""


def _by_default(cls: Any) -> dict[str, Any]:
    """Under which protocol a model runs where none is named, and why."""
    from fedbench.scenarios import protocols
    from fedbench.scenarios.adhoc import WHY

    name, model = protocols.usual(cls), cls.card.name
    protocol = protocols.preset(name, model, "")
    whose = (
        "has values of its own for this model"
        if protocols.knows(name, model)
        else "has none for this model, which gets those for any (find its own with --set learning_rate=..., --set epochs=...)"
    )
    return {
        "protocol": f"{name}, {WHY[name]}, unless --protocol names another; it {whose}",
        "training": [{"field": field, "value": getattr(protocol, field)} for field in _TRAINING],
    }


def _of_images(kind: str, cls: Any) -> dict[str, str]:
    """What an attack or a defense does to images; nothing, if it does none of that."""
    if kind == "attacks" and cls.card.channel.shows_images:
        own = cls.Params.model_fields.get("eps")
        eps = None if own is None else own.default
        bound = (
            f"every pixel within eps = {eps:g} of the original" if isinstance(eps, int | float) else "within its eps"
        )
        also = ", and uploads gradients" if cls.card.channel == "image+gradient" else "; its clients upload nothing"
        return {"images": f"replaces those of the targets, {bound} (of 255){also}"}
    if kind == "defenses" and cls.card.family == "purification":
        return {"images": "cleans each before the extractor sees it: all at first, then every replaced one"}
    return {}


def _describe_network(kind: str, name: str) -> dict[str, Any]:
    return {**summary(kind, name), "source": _registry(kind).origin(name)}


def _parameters(cls: type[Parameters]) -> list[dict[str, Any]]:
    from fedbench.entries.cards import parameter_docs

    return [
        {
            "parameter": doc.name,
            "type": doc.type,
            "default": doc.default,
            "description": doc.description,
        }
        for doc in parameter_docs(cls)
    ]


def _describe_suite(name: str) -> dict[str, Any]:
    from fedbench.scenarios.suite import load_suite, matrix_of

    suite = load_suite(name)
    planned = suite.plan()
    matrix = [{"field": field, "values": values} for field, values in matrix_of(planned).items()]
    return {
        **_suite(name),
        "seeds": sorted({seed for each in planned for seed in each.seeds}),
        "twins": sum(each.twin for each in planned),
        "published_values": len(suite.expected),
        "warnings": suite.warnings(planned),
        "matrix": matrix,
    }


def _describe_protocol(name: str) -> dict[str, Any]:
    """Every field for each model, and what differs for single datasets."""
    from fedbench.entries.cards import parameter_docs
    from fedbench.federation.protocol import Protocol
    from fedbench.scenarios import protocols

    models = names("models")
    presets = {model: protocols.preset(name, model, "") for model in models}
    fields = [
        {
            "field": doc.name,
            **{model: getattr(preset, doc.name) for model, preset in presets.items()},
            "description": doc.description,
        }
        for doc in parameter_docs(Protocol)
    ]
    special = []
    for dataset in names("datasets"):
        for model, preset in presets.items():
            own = protocols.preset(name, model, dataset)
            special += [
                f"{dataset}, {model}: {doc} = {getattr(own, doc)}"
                for doc in Protocol.model_fields
                if getattr(own, doc) != getattr(preset, doc)
            ]
    methods: dict[str, list[str]] = {"models": [], "attacks": [], "defenses": []}
    for each in protocols.method_presets(name):
        where = " on ".join([each.method, *(place for place in (each.model, each.dataset) if place != "*")])
        methods[f"{each.kind}s"] += [f"{where}: {key} = {value}" for key, value in each.values.items()]
    return {
        **_protocol(name),
        "for_single_datasets": special,
        **methods,
        "fields": fields,
    }


_DESCRIBERS: dict[str, Callable[[str], dict[str, Any]]] = {
    **{kind: partial(_describe_entry, kind) for kind in _FACTS},
    **{kind: partial(_describe_network, kind) for kind in ("extractors", "denoisers")},
    "datasets": _dataset,
    "suites": _describe_suite,
    "protocols": _describe_protocol,
}


def is_table(value: Any) -> bool:
    """Whether a value is a list of rows."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def text_of(value: Any) -> str:
    """A value for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    return str(value)
