"""fedbench: a benchmark of poisoning attacks and defenses for federated recommenders.

All that a notebook or a contributor's file needs is here, under names that stay put when modules move; ``__init__.pyi``
lists them by purpose. Each is imported when it is first used: ``import fedbench`` itself imports next to nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
