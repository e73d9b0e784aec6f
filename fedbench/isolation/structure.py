"""The recommender's structure, as it goes to another process: its name there and its hyper-parameters."""

from __future__ import annotations

import functools
import json

from fedbench.federation.model import Recommender
from fedbench.models import MODELS


def told(model: Recommender | None) -> tuple[str, str] | None:
    """What :func:`made` makes it of; None: it is not one of fedbench's."""
    name = MODELS.name_of(type(model)) if model is not None else None
    if model is None or name is None or not MODELS.builtin(name):
        return None
    return name, json.dumps(model.params.model_dump(mode="json"))


@functools.cache
def made(name: str, params: str) -> Recommender:
    """The same structure; models have no state."""
    cls = MODELS.get(name)
    return cls(cls.Params(**json.loads(params)))
