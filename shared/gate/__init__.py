"""The gate: who may do what to whom, in one Redis round trip for all commands that wait.

Redis holds copies of what SQL says. A copy that is not there is read from SQL under a load nonce: whoever changes a
right removes the copy between COMMIT and answer, and with it the nonce, so that a reader which was under way cannot
put the old right back. From the answer on the new right holds. Without Redis the answers come from SQL, and limits are
kept in this process.
"""

from shared.gate.copies import Copies, Limit
from shared.gate.gate import APPLICATIONS, MESSAGES, POSITIONS, TYPING, Gate
from shared.gate.keys import group_key, member_key, pair_key, user_key
from shared.gate.people import Relation

__all__ = [
    "APPLICATIONS",
    "MESSAGES",
    "POSITIONS",
    "TYPING",
    "Copies",
    "Gate",
    "Limit",
    "Relation",
    "group_key",
    "member_key",
    "pair_key",
    "user_key",
]
