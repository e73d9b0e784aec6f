"""What is said of parameters that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from fedbench.attacks import ATTACKS
from fedbench.entries.cards import Parameters, parse_parameters
from fedbench.errors import UserError
from fedbench.models import MODELS


class Needy(Parameters):
    """One that must be given, and a list."""

    size: int
    layers: tuple[int, ...] = Field((8, 4))


@pytest.mark.parametrize(
    ("cls", "values", "said"),
    [
        (ATTACKS.get("fang").Params, {"low": 5.0, "high": 4.0}, "it: high = 4 is below low = 5."),
        (MODELS.get("sasrec").Params, {"heads": 5}, "it: parameter heads = 5: must divide embedding_size = 64."),
        (
            ATTACKS.get("lie").Params,
            {"z": "rulez"},
            "it: parameter z = 'rulez': Input should be a valid number, unable to parse string as a number;"
            " Input should be 'rule'.",
        ),
        (ATTACKS.get("fang").Params, {"hig": 2.0}, "Unknown parameter of it: 'hig'. Did you mean 'high'?"),
        (Needy, {}, "it: parameter size: Field required."),
        (
            Needy,
            {"size": 1, "layers": [8, "x"]},
            "it: parameter layers = [8, 'x']: Input should be a valid integer, unable to parse string as an integer.",
        ),
        (
            Needy,
            {"size": "x", "layers": "x"},
            "it: parameter size = 'x': Input should be a valid integer, unable to parse string as an integer.",
        ),
    ],
)
def test_one_line_names_the_parameter_and_all_that_it_may_be(
    cls: type[Parameters], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        parse_parameters(cls, values, "it")
    assert str(raised.value) == said
