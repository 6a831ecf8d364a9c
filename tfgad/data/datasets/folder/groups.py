"""Groups of a folder's good images: the rolls, cameras or days that their names tell."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from tfgad.data.datasets.folder.layout import GOOD
from tfgad.errors import UsageError
from tfgad.files import summarize

FOLDER = "folder"  # the value of `group=` that takes the first folder below `good/`
EACH = "image"  # the value that gives each image its own group, as without `group=`
OPTION = "data option group"


def groups_of(names: Sequence[str], group: str | None, good: str = GOOD) -> dict[str, str] | None:
    """Returns the group of each good image, as the option `group=` finds it.

    Args:
        names: of the good images, relative to the data set's folder.
        group: `"folder"`: the first folder below `good/`. A regular expression: what its one
            capture group matches, anywhere in the name. None or `"image"`: no groups.
        good: the name of the folders of good images.

    Returns:
        Name -> group; None without groups.

    Raises:
        UsageError: no regular expression with one capture group, or an image without a group.
    """
    if group is None or group == EACH:
        return None
    find = functools.partial(_folder, good=good) if group == FOLDER else _matcher(group)
    found = {name: find(name) for name in names}
    without = [name for name, value in found.items() if not value]
    if without:
        named = summarize(without, len(names))
        if group == FOLDER:
            problem = f"leaves good images without a group, as no folder holds them: {named}"
            hint = "put each image into a folder of its roll, such as good/roll7/001.png"
        else:
            problem = f"leaves good images without a group, as it does not match: {named}"
            hint = (
                r"the whole name is searched, such as good/roll7_001.png by group=(roll\d+)_; "
                "a run's own group= holds for --data too, unless it has group=image"
            )
        raise UsageError(OPTION, group, problem, hint)
    return {name: value for name, value in found.items() if value}


def groups_of_some(names: Sequence[str], group: str | None, good: str = GOOD) -> dict[str, str]:
    """Returns the group of each test image that has one, as `groups_of` finds it.

    Args:
        names: of test images, good and defective ones, relative to the data set's folder.
        group: as `groups_of` takes it.
        good: as `groups_of` takes it.

    Returns:
        Name -> group. Without groups it is empty.
    """
    if group is None or group == EACH:
        return {}
    find = functools.partial(_folder, good=good) if group == FOLDER else _matcher(group)
    return {name: value for name in names if (value := find(name))}


def check_enough_groups(option: str | None, count: int, parts: Sequence[str]) -> None:
    """Raises UsageError if there are fewer groups than parts that need one.

    Args:
        option: the value of `group=`.
        count: number of groups.
        parts: what the groups are split into.
    """
    if count < len(parts):
        noun = "group" if count == 1 else "groups"
        problem = f"gives {count} {noun} of good images, of which {', '.join(parts)} need one each"
        hint = "add images of other groups, or leave group= out"
        raise UsageError(OPTION, option, problem, hint)


def _folder(name: str, good: str) -> str | None:
    """Returns the first folder below `good/`, `train/good/` or the like."""
    folders = name.split("/")[:-1]
    of_good = [i for i, each in enumerate(folders[:2]) if each.lower() == good.lower()]
    return folders[of_good[0] + 1] if of_good and of_good[0] + 1 < len(folders) else None


def _matcher(text: str) -> Callable[[str], str | None]:
    """Returns the function from a name to what the capture group of an expression matches."""
    hint = r"give folder, or an expression with one capture group, such as (roll\d+)_"
    try:
        expression = re.compile(text)
    except re.error as error:
        raise UsageError(OPTION, text, f"is no regular expression: {error}", hint) from None
    if expression.groups != 1:
        problem = f"has {expression.groups} capture groups, not one"
        raise UsageError(OPTION, text, problem, hint)

    def find(name: str) -> str | None:
        match = expression.search(name)
        return match[1] if match else None

    return find
