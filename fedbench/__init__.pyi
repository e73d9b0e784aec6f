# The door of the package: what users and contributors import, and where each name lives today. These names stay put when
# modules move; whatever is not here may move without notice.

# Run and read.
# An attack.
from .attacks.own_data import random_profiles as random_profiles
from .attacks.uploads import target_updates as target_updates

# A dataset.
from .data.catalogue import DatasetCard as DatasetCard
from .data.contributed import Dataset as Dataset
from .data.records import Interactions as Interactions
from .data.records import Table as Table

# A defense.
from .defenses.robust import (
    CoordinateRule as CoordinateRule,
)
from .defenses.robust import (
    ScopeParameters as ScopeParameters,
)
from .defenses.robust import (
    ShareParameters as ShareParameters,
)
from .defenses.robust import (
    WeightingRule as WeightingRule,
)
from .entries.cards import (
    AttackCard as AttackCard,
)
from .entries.cards import (
    Channel as Channel,
)
from .entries.cards import DefenseCard as DefenseCard
from .entries.cards import DefenseFamily as DefenseFamily
from .entries.cards import (
    Goal as Goal,
)
from .entries.cards import (
    Knowledge as Knowledge,
)

# A model.
from .entries.cards import ModelCard as ModelCard
from .entries.cards import (
    Parameters as Parameters,
)

# Errors.
from .errors import (
    DataError as DataError,
)
from .errors import (
    FedbenchError as FedbenchError,
)
from .errors import (
    ResultsError as ResultsError,
)
from .errors import (
    ThreatModelViolation as ThreatModelViolation,
)
from .errors import (
    UserError as UserError,
)
from .federation.attack import Attack as Attack
from .federation.batch import Batch as Batch
from .federation.defense import (
    ClientRegularization as ClientRegularization,
)
from .federation.defense import (
    Defense as Defense,
)
from .federation.defense import (
    ServerView as ServerView,
)
from .federation.images import ItemImages as ItemImages
from .federation.images import ReplacedImages as ReplacedImages
from .federation.losses import Loss as Loss
from .federation.model import (
    Histories as Histories,
)
from .federation.model import (
    LocalStep as LocalStep,
)
from .federation.model import (
    PublicParams as PublicParams,
)
from .federation.model import (
    Recommender as Recommender,
)

# Check an entry, and try it in a small federation.
from .federation.population import Task as Task
from .federation.rows import FullRows as FullRows
from .federation.rows import Rows as Rows
from .federation.server import clip_factor as clip_factor
from .federation.simulation import Federation as Federation
from .federation.updates import DenseGradients as DenseGradients
from .federation.updates import Updates as Updates
from .federation.updates import no_updates as no_updates
from .federation.view import AttackerView as AttackerView
from .federation.view import HonestStep as HonestStep
from .federation.view import Profiles as Profiles
from .plugins.files import load_file as load_file
from .runs.record import RunRecord as RunRecord
from .runs.results import load_results as load_results
from .runs.run import run as run
from .scenarios.scenario import Scenario as Scenario
from .scenarios.suite import Suite as Suite
from .scenarios.suite import load_suite as load_suite
from .testing.attacks import check_attack as check_attack
from .testing.datasets import check_dataset as check_dataset
from .testing.defenses import check_defense as check_defense
from .testing.federations import small_federation as small_federation
from .testing.federations import small_task as small_task
from .testing.finding import failures as failures
from .testing.models import check_model as check_model

__version__: str
