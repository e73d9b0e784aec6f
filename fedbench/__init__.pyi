# The door of the package: what users and contributors import, and where each name lives today. These names stay put when
# modules move; whatever is not here may move without notice.

# Run and read.
from .scenarios.given import Scenario as Scenario
from .scenarios.suite import Suite as Suite, load_suite as load_suite
from .runs.run import Progress as Progress, run as run
from .runs.record import RunRecord as RunRecord
from .runs.results import load_results as load_results, write_record as write_record
from .leaderboard.tidy import load_leaderboard as load_leaderboard

# An attack: its card and parameters, what it sees, what it returns.
from .federation.attack import Attack as Attack
from .entries.cards import (
    LATER as LATER,
    AttackCard as AttackCard,
    Channel as Channel,
    Goal as Goal,
    Knowledge as Knowledge,
    NoParameters as NoParameters,
    Parameters as Parameters,
)
from .federation.view import (
    AttackerView as AttackerView,
    HonestStep as HonestStep,
    Profiles as Profiles,
    PublicInteractions as PublicInteractions,
)
from .federation.updates import DenseGradients as DenseGradients, Updates as Updates, no_updates as no_updates
from .federation.rows import FullRows as FullRows, Rows as Rows
from .federation.images import ItemImages as ItemImages, ReplacedImages as ReplacedImages
from .attacks.uploads import target_updates as target_updates
from .attacks.own_data import random_profiles as random_profiles

# A defense: its card, what it sees, what its hooks return; the bases of robust rules.
from .federation.defense import (
    ClientRegularization as ClientRegularization,
    Defense as Defense,
    ServerView as ServerView,
)
from .entries.cards import DefenseCard as DefenseCard, DefenseFamily as DefenseFamily
from .federation.server import clip_factor as clip_factor
from .defenses.coordinates import Column as Column
from .defenses.robust import (
    CoordinateRule as CoordinateRule,
    ScopeParameters as ScopeParameters,
    ShareParameters as ShareParameters,
    WeightingRule as WeightingRule,
)
from .defenses.purifier import Purifier as Purifier, PurifierParams as PurifierParams

# A model: its card, what it is given, what it returns.
from .federation.model import (
    Histories as Histories,
    LocalStep as LocalStep,
    PublicParams as PublicParams,
    Recommender as Recommender,
)
from .models.autograd import AutogradRecommender as AutogradRecommender
from .entries.cards import ModelCard as ModelCard
from .federation.batch import Batch as Batch
from .federation.losses import Loss as Loss

# A dataset.
from .data.contributed import Dataset as Dataset
from .data.catalogue import DatasetCard as DatasetCard
from .data.records import Interactions as Interactions, Table as Table

# Check an entry, and try it in a small federation.
from .plugins.files import load_file as load_file
from .testing.attacks import check_attack as check_attack
from .testing.defenses import check_defense as check_defense
from .testing.models import check_model as check_model
from .testing.datasets import check_dataset as check_dataset
from .testing.finding import Budget as Budget, Finding as Finding, failures as failures
from .testing.federations import small_federation as small_federation, small_task as small_task
from .federation.population import Task as Task
from .federation.simulation import Federation as Federation

# Errors, each one line for the user.
from .errors import (
    DataError as DataError,
    Diverged as Diverged,
    FedbenchError as FedbenchError,
    ResultsError as ResultsError,
    ThreatModelViolation as ThreatModelViolation,
    UserError as UserError,
)

__version__: str
