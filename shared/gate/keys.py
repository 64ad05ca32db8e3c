"""Keys of the copies. Whoever changes what a copy says removes it between COMMIT and answer: `Copies.forget`."""


def user_key(user_id: int) -> str:
    """Whether a user exists."""
    return f"im:user:{user_id}"


def pair_key(a: int, b: int) -> str:
    """What two users are to each other: one copy for both directions."""
    return f"im:rel:{a}:{b}" if a < b else f"im:rel:{b}:{a}"


def group_key(group_id: int) -> str:
    """Whether a group exists, and what holds for all its members."""
    return f"im:grp:{group_id}"


def member_key(group_id: int, user_id: int) -> str:
    """What a user is in a group."""
    return f"im:mem:{group_id}:{user_id}"
