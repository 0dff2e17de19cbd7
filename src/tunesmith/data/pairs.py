"""Two answers to one prompt, checked to be that: the prompt alike, and an answer on each side."""

from itertools import takewhile

from tunesmith.core.errors import DataError
from tunesmith.core.rows import Pair, Turns
from tunesmith.data.turns import answered, shown


def pair(asked: Turns, chosen: Turns, rejected: Turns, names: tuple[str, str]) -> Pair:
    """The preference. Sides that do not begin with an answer are whole conversations: what they
    begin with alike is the prompt, and `asked`, where it is said too, stands in it.

    `names` are the fields of the sides. Raises DataError for what is no pair. One answer on both
    sides is: the quality audit tells of all such rows at once.
    """
    if any(side[0].role != "assistant" for side in (chosen, rejected)):
        shared = beginning(chosen, rejected, names)
        refuse_other_prompt(asked, shared, names)
        asked, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
    elif not asked or asked[-1].role == "system":
        raise DataError(
            f"the prompt is missing, and {' and '.join(names)} are answers alone; write prompt, "
            f"or whole conversations"
        )
    return Pair(shown(asked), answered(chosen, names[0]), answered(rejected, names[1]))


def beginning(chosen: Turns, rejected: Turns, names: tuple[str, str]) -> Turns:
    """The turns that two whole conversations share; behind them each goes on with an answer."""
    both = zip(chosen, rejected, strict=False)
    shared = tuple(one for one, _ in takewhile(lambda turns: turns[0] == turns[1], both))
    if chosen == rejected and chosen[-1].role == "assistant":
        shared = shared[:-1]  # They prefer an answer to itself.
    for name, side in zip(names, (chosen, rejected), strict=True):
        following = [message.role for message in side[len(shared) :][:1]]
        if not shared or following != ["assistant"]:
            found = f"a turn of '{following[0]}'" if following else "nothing more"
            raise DataError(
                f"{name} has {found} at [{len(shared)}], where {' and '.join(names)} part; write "
                f"there, in both, an answer to the same question"
            )
    return shared


def refuse_other_prompt(asked: Turns, shared: Turns, names: tuple[str, str]) -> None:
    """Refuse a prompt beside whole conversations that do not ask it."""
    said = [(message.role, message.content) for message in shared]
    if any((message.role, message.content) not in said for message in asked):
        raise DataError(
            f"the prompt is not in what {' and '.join(names)}, which are whole conversations, "
            f"begin with; correct it, or remove it"
        )
