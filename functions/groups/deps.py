"""What the handlers of `groups` need."""

import msgspec

from functions.groups.announce import Announcer
from functions.groups.change import Changes
from functions.groups.store import SqlGroups


class Deps(msgspec.Struct, frozen=True):
    """changes: transactions. groups: reads. announcer: what follows a COMMIT."""

    changes: Changes
    groups: SqlGroups
    announcer: Announcer
