"""What may stand in a suite file, and how a mistake in one is explained.

The file, from top to bottom::

    name, version, title, description, paper
    seeds = 5                       # so many (0 to 4), or a list
    twins = true                    # add the clean and the undefended twin of every scenario
    [defaults]                      # fields of every scenario
    [matrix]                        # field = [value, ...]; a value {field = ..., field = ...} sets several together
    [[group]]                       # several matrices: each inherits the above and replaces what it names;
    variant, seeds                  #   `variant` is a label by which expected values and --only tell groups apart
    adaptive = true                 #   of its malicious ratios, those are run that say where the response rises
    [[override]] when, set          # in order; parameters are merged, other fields replaced
    [[exclude]]  when
    [[expected]] where, metric, value, source, band, near, at_epoch, statistic, note, absent
    [[expected_table]]              # the same for a whole printed table: columns and rows
    [[reason]] where, metric, why, run  # of published values that differ from the published records

A metric of an expected value is a column of the records (``hr_10``, ``hr_full_5`` ...), or ``degradation_K`` or
``ndcg_degradation_K``: the share of HR@K or NDCG@K by full ranking that the attack takes, 1 - attacked / clean, clean being
the run of the same seed without attack and defense (the suite needs ``twins = true``); or ``er_K_onset``, the number of the
attack's epoch in which ER@K first reaches 99 %; or ``detection_recall``, ``detection_false_positive_rate`` (of the defense's
own threshold), ``detection_recall_zero_fp`` and ``detection_auc``; or ``blur_std`` and ``brisque_std``, the spread of the
images' quality; or ``defense_seconds``, by how much a round is longer than that of the undefended twin of the same seed.
Onsets, spreads and seconds are no shares: their values and tolerances are in units of their own. Of what no record has,
:data:`UNRECORDED`, a value can only be stated with ``absent``.

With ``absent``, the reason why it cannot be run here, a published value stands for itself: no scenario need have it.

In ``when`` and ``where`` a field matches a value, a glob, or any of a list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fedbench.errors import UserError, unknown
from fedbench.scenarios.limits import LONGEST_NAME, MOST_RULES, MOST_SEEDS, SEED_LIMIT
from fedbench.scenarios.scenario import Scenario
from fedbench.texts import visible

FIELDS = tuple(field.name for field in dataclasses.fields(Scenario))
LABELS = (*(name for name in FIELDS if not name.endswith("_params")), "variant")
"""What `--only` can name; ``when`` and ``where`` can name the parameters too."""

SUITE_NAME = r"[a-z0-9][a-z0-9._-]*"
"""A pattern: what a suite can be called."""

Metric = Annotated[
    str,
    Field(
        pattern=r"^(er_30|(er|hr|ndcg|hr_full|ndcg_full|recall|precision|degradation|ndcg_degradation)_(5|10|20)"
        r"|er_(5|10|20|30)_onset|(blur|brisque)_std|detection_(recall_zero_fp|auc|recall|false_positive_rate)"
        r"|defense_seconds|embedding_kl|gradient_kl|user_coverage)$"
    ),
]
ONSET = "_onset"
"""Ends the name of a metric that is a number of epochs."""
SECONDS = "defense_seconds"
UNRECORDED = ("embedding_kl", "gradient_kl", "user_coverage")
"""Divergence of the embeddings of users from those of popular items, or of malicious gradients from honest ones, and the
share of users who have one of the popular items."""
DEGRADATION = {"degradation": "hr_full", "ndcg_degradation": "ndcg_full"}
"""Metrics that are a relative loss, and of what."""
Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]
Seeds = Annotated[int, Field(ge=1, le=MOST_SEEDS)] | Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)]
Statistic = Literal["end", "peak", "tail", "best-validation"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Near = Annotated[float, Field(gt=0)]
Matrix = dict[str, Annotated[list[Any], Field(min_length=1)]]


def is_degradation(metric: str) -> bool:
    """Whether a metric is a loss relative to the run without attack and defense."""
    return metric.rpartition("_")[0] in DEGRADATION


def is_share(metric: str) -> bool:
    """Whether a metric is a fraction, which is shown in percent."""
    return not metric.endswith((ONSET, "_std", "_kl", SECONDS))


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Group(_Strict):
    """One matrix of a suite."""

    variant: str | None = None
    """A label, by which `--only variant=...`, `when` and `where` tell groups apart."""
    seeds: Seeds | None = None
    """Instead of the suite's."""
    adaptive: bool = False
    """Whether of the malicious ratios of each curve only those are run between which the response rises."""
    defaults: dict[str, Any] = {}
    """Fields of every scenario of the group, above the suite's."""
    matrix: Matrix = {}
    """Values of fields, of which every combination is a scenario; with the suite's matrix, whose fields these replace."""


class Override(_Strict):
    """Fields that scenarios of a kind get instead of their own."""

    when: dict[str, Any]
    """Which scenarios: a field matches a value, a glob, or any of a list; empty: all."""
    values: dict[str, Any] = Field(alias="set")
    """Fields and their values; parameters are merged, other fields replaced."""


class Exclude(_Strict):
    """Scenarios that are left out."""

    when: dict[str, Any]
    """Which: a field matches a value, a glob, or any of a list."""


class Expected(_Strict):
    """A published value, and where in the suite it belongs."""

    where: dict[str, Any]
    """Which scenarios."""
    metric: Metric
    """A column of the records, or one of those that are worked out of them (see the end of this page)."""
    value: float
    """As a fraction, also where the paper prints percent; only a degradation can be below 0."""
    source: str
    """Where it is printed."""
    band: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Lowest and highest mean that counts as a reproduction."""
    near: Near | None = None
    """How far from the value, as a fraction, a mean still agrees; None: the metric's usual tolerance, see `reproduce`."""
    at_epoch: int | None = None
    """Epoch of the published value; None: the last."""
    statistic: Statistic = "end"
    """At the end of training, its peak or its mean over the last quarter, or at the evaluation that is best on validation
    items (highest HR@5)."""
    note: str = ""
    """What to know of it."""
    absent: str = ""
    """Why it cannot be run here; empty where it can."""

    @model_validator(mode="after")
    def _is_recorded(self) -> Self:
        if self.metric in UNRECORDED and not self.absent:
            raise PydanticCustomError("unrecorded", f"no record has {self.metric}: say why in absent")
        return self

    @field_validator("value", "band", "near")
    @classmethod
    def _within_what_is_possible(
        cls, value: float | list[float] | None, info: ValidationInfo
    ) -> float | list[float] | None:
        values, metric = (
            value if isinstance(value, list) else [] if value is None else [value],
            info.data.get("metric", ""),
        )
        least = -1.0 if is_degradation(metric) else 0.0
        for each in values:
            if each < least:
                raise PydanticCustomError("greater_than_equal", f"Input should be greater than or equal to {least:g}")
            if each > 1 and is_share(metric):
                raise PydanticCustomError("less_than_equal", "Input should be less than or equal to 1")
        return value

    @field_validator("statistic")
    @classmethod
    def _a_loss_has_no_peak(cls, value: str, info: ValidationInfo) -> str:
        if value in ("peak", "tail") and is_degradation(info.data.get("metric", "")):
            raise PydanticCustomError("degradation", "a degradation is measured at the end or at best-validation")
        if value != "end" and info.data.get("metric", "").startswith(("blur", "brisque", "detection", SECONDS)):
            raise PydanticCustomError("once", "what is measured of images, and seconds, are measured at the end")
        return value


class Reason(_Strict):
    """Why published values differ from the records that fedbench publishes."""

    where: dict[str, Any] = {}
    """Which values: what their own `where` must have."""
    metric: str = "*"
    """Of which metrics, a glob."""
    why: str
    """In a sentence."""
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{16}-s[0-9]+$")]
    """The id of a run that shows it."""


class ExpectedTable(_Strict):
    """A printed table of published values: the columns are fields of scenarios and metrics."""

    source: str
    """Where it is printed."""
    where: dict[str, Any] = {}
    """What all its cells have in common."""
    statistic: Statistic = "end"
    """As of a single value."""
    near: Near | dict[str, Near] | None = None
    """As of a single value; or a tolerance for each metric."""
    at_epoch: int | None = None
    """As of a single value."""
    absent: str = ""
    """As of a single value."""
    columns: list[str]
    """Fields of scenarios, and metrics."""
    rows: list[list[Any]]
    """One cell for each column: what the field is, or the value or a table `{ value, band, near, note }` of the metric."""

    def cells(self, place: str) -> Iterator[Expected]:
        """Every value of the table; ``place`` is what messages call it."""
        unknown = set(self.near) - set(self.columns) if isinstance(self.near, dict) else set()
        if unknown:
            raise UserError(f"{place}: near of {', '.join(sorted(unknown))}, which is no column of the table.")
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise UserError(f"{place}: row {number} has {len(row)} values for {len(self.columns)} columns.")
            cells = dict(zip(self.columns, row, strict=True))
            where = self.where | {key: value for key, value in cells.items() if key in LABELS}
            common = {name: getattr(self, name) for name in ("source", "statistic", "at_epoch", "absent")}
            for key, value in cells.items():
                if key not in LABELS:
                    near = self.near.get(key) if isinstance(self.near, dict) else self.near
                    own: dict[str, Any] = {"near": near, **(value if isinstance(value, Mapping) else {"value": value})}
                    try:
                        yield Expected(where=where, metric=key, **{**common, **own})
                    except ValidationError as error:
                        raise UserError(f"{place}: row {number}, column {key!r}: {explain(error, Expected)}") from None


class SuiteFile(_Strict):
    """A whole file."""

    name: Annotated[str, Field(pattern=f"^{SUITE_NAME}$", max_length=LONGEST_NAME)]
    """What it is called in records and by `--suite`: lower-case words joined by `-`."""
    version: Annotated[int, Field(ge=1)]
    """Raised when its scenarios change."""
    title: str
    """One line, for lists."""
    description: str = ""
    """What it compares, and what one may conclude of it."""
    paper: str = ""
    """Whose set-up it is, where it is one's."""
    seeds: Seeds = 5
    """So many (0 to 4), or a list."""
    twins: bool = True
    """Whether the clean and the undefended twin of every scenario come along: without them defenses cannot be ranked."""
    defaults: dict[str, Any] = {}
    """Fields of every scenario."""
    matrix: Matrix = {}
    """Values of fields, of which every combination is a scenario; a value that is a table sets several fields together."""
    group: Annotated[list[Group], Field(max_length=MOST_RULES)] = []
    """Several matrices: each inherits the defaults and the matrix above, and replaces what it names."""
    override: Annotated[list[Override], Field(max_length=MOST_RULES)] = []
    """Applied to every scenario in their order."""
    exclude: Annotated[list[Exclude], Field(max_length=MOST_RULES)] = []
    """Applied after the overrides."""
    expected: Annotated[list[Expected], Field(max_length=MOST_RULES)] = []
    """Published values, one each, for `fedbench reproduce`."""
    expected_table: Annotated[list[ExpectedTable], Field(max_length=MOST_RULES)] = []
    """Published values, a printed table each."""
    reason: Annotated[list[Reason], Field(max_length=MOST_RULES)] = []
    """Why published values differ from ours."""


def explain(error: ValidationError, owner: type[BaseModel]) -> str:
    """The first mistake as ``override 2: unknown key 'wen'. Did you mean 'when'?``.

    Args:
        error: what pydantic found. owner: the model that was read.
    """
    first = error.errors()[0]
    path = list(first["loc"])
    parts: dict[str, type[BaseModel]] = {
        "group": Group,
        "override": Override,
        "exclude": Exclude,
        "expected": Expected,
        "expected_table": ExpectedTable,
        "reason": Reason,
    }
    place = ""
    if len(path) > 1 and path[0] in parts and isinstance(path[1], int):
        place, owner = f"{path[0]} {path[1] + 1}: ", parts[str(path[0])]
        path = path[2:]
    key = str(path[0]) if path else ""
    if not key and first["type"] == "unrecorded":
        return place + str(first["msg"]) + "."
    if first["type"] == "extra_forbidden":
        names = [info.alias or name for name, info in owner.model_fields.items()]
        return place + lowered(str(unknown("key", key, names)))
    if first["type"] == "missing":
        return f"{place}key {key!r} is missing."
    if first["type"] == "int_type" and isinstance(first.get("input"), list):
        first = error.errors()[-1]  # a value that may be a number or a list: what is wrong with the list
    return f"{place}{key} = {visible(repr(first.get('input')), 80)}: {lowered(first['msg'])}."


def check_names(file: SuiteFile) -> None:
    """Raise :class:`UserError` for a key that is no field of a scenario, saying where it stands."""
    with_variant = (*FIELDS, "variant")
    matrices: list[tuple[str, SuiteFile | Group]] = [("", file)]
    matrices += [(f"group {i}: ", group) for i, group in enumerate(file.group, 1)]
    for place, group in matrices:
        _check(group.defaults, f"{place}defaults")
        _check(group.matrix, f"{place}matrix")
        for key, values in group.matrix.items():
            for value in values:
                if isinstance(value, Mapping) and not key.endswith("_params"):
                    _check(value, f"{place}matrix: {key}")
    for i, override in enumerate(file.override, 1):
        _check(override.when, f"override {i}: when", with_variant)
        _check(override.values, f"override {i}: set")
    for i, exclude in enumerate(file.exclude, 1):
        _check(exclude.when, f"exclude {i}: when", with_variant)
    for i, expected in enumerate(file.expected, 1):
        _check(expected.where, f"expected {i}: where", with_variant)
    for i, table in enumerate(file.expected_table, 1):
        _check(table.where, f"expected_table {i}: where", with_variant)
    for i, reason in enumerate(file.reason, 1):
        _check(reason.where, f"reason {i}: where", with_variant)


def _check(keys: Iterable[str], place: str, known: Collection[str] = FIELDS) -> None:
    for key in keys:
        if key not in known:
            raise UserError(f"{place}: {lowered(str(unknown('key', key, known)))}")


def lowered(text: str) -> str:
    """``text`` as the continuation of a sentence."""
    return text[:1].lower() + text[1:]
