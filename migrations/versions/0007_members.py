"""An index of who is in a conversation, for receipts."""

from alembic import op
from sqlalchemy import inspect

revision = "0007"
down_revision = "0006"

INDEX = "idx_user_conversation_conversation_id"


def upgrade() -> None:
    """Adds the index, unless an interrupted run has done so."""
    there = {index["name"] for index in inspect(op.get_bind()).get_indexes("user_conversation")}
    if INDEX not in there:
        op.create_index(INDEX, "user_conversation", ["conversation_id"])
