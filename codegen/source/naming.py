"""Names in emitted code: identifiers from the model's names, and who holds which while it is live."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable
from heapq import heappop, heappush

_TAKEN = frozenset(keyword.kwlist) | frozenset(dir(builtins))
_NUMBERED = re.compile(r"^(.*?)_?(\d+)$")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

MODULE_MEMBERS = frozenset(
    re.findall(
        r"\w+",
        """
T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches
eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict
modules mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook
register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
set_extra_state set_submodule share_memory state_dict to to_empty train training type xpu zero_grad
""",
    )
)
"""What an `nn.Module` has itself: a layer of such a name would take its place, or be hidden by it."""

_NO_ENTRIES = MODULE_MEMBERS | frozenset(re.findall(r"\w+", "load nested with_lists params self"))


def identifier(name: str) -> str:
    """`name` in snake case as a Python identifier that shadows no keyword or builtin."""
    text = _plain(_WORD_START.sub("_", name)).strip("_").lower() or "value"
    if text[0].isdigit():
        text = f"n{text}"
    return f"{text}_" if text in _TAKEN else text


def member(name: str) -> str:
    """`name` as an attribute: its case is kept, builtins are no trouble there.

    Underscores in front go: Python mangles such names, or the framework has them for itself.
    """
    text = _plain(name).lstrip("_") or "value"
    return f"_{text}" if text[0].isdigit() else f"{text}_" if keyword.iskeyword(text) else text


def _plain(name: str) -> str:
    """`name` as Python compares identifiers, with an underscore for each run of what these cannot have."""
    text = unicodedata.normalize("NFKC", name)
    return re.sub("__+", "_", "".join(c if f"_{c}".isidentifier() else "_" for c in text))


def class_name(name: str) -> str:
    """`residual_block_3` → `ResidualBlock`."""
    words = _plain(stem(name)).split("_")
    text = "".join(word[:1].upper() + word[1:] for word in words if word) or "Block"
    return f"Block{text}" if text[0].isdigit() else text


def stem(name: str) -> str:
    """A numbered sibling's name without its number: `block_3` and `block` are siblings."""
    found = _NUMBERED.match(name)
    return found[1] if found and found[1] else name


def plural(name: str) -> str:
    """`block` → `blocks`, for lists of siblings."""
    if name.endswith(("s", "x", "ch", "sh")):
        return f"{name}es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}s"


class Names:
    """Names that are free or held, in one body. Taking and releasing are O(log n) in the names of one base."""

    def __init__(self, reserved: frozenset[str] | set[str] = frozenset()) -> None:
        self.held: set[str] = set(reserved)
        self._next: dict[str, int] = {}
        self._freed: dict[str, list[int]] = {}
        self._numbered: dict[str, tuple[str, int]] = {}

    def is_free(self, name: str) -> bool:
        return name not in self.held

    def take(self, base: str) -> str:
        """`base` if it is free, else `base_1`, `base_2`, … with the lowest number that is."""
        if base not in self.held:
            self.held.add(base)
            return base
        freed = self._freed.get(base)
        while freed:
            number = heappop(freed)
            name = f"{base}_{number}"
            if name not in self.held:
                self.held.add(name)
                return name
        number = self._next.get(base, 1)
        while (name := f"{base}_{number}") in self.held:
            number += 1
        self._next[base] = number + 1
        self._numbered[name] = base, number
        self.held.add(name)
        return name

    def release(self, name: str) -> None:
        self.held.discard(name)
        numbered = self._numbered.get(name)
        if numbered is not None:
            heappush(self._freed.setdefault(numbered[0], []), numbered[1])


def entry_names(entries: Iterable[str], reserved: frozenset[str] = frozenset()) -> dict[str, str]:
    """What the methods of entries are called: `forward` the first, the others as they are.

    What a file or a class of it needs for itself gets a number: names that every file has, and those `reserved` by the
    target for its imports and helpers.
    """
    names = Names(_NO_ENTRIES | reserved)
    return {entry: names.take(identifier(entry)) if i else "forward" for i, entry in enumerate(entries)}
