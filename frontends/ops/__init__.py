"""`graphc.ops`: functions under Keras's names on arrays (evaluated at once by the reference), traced values and
symbolic tensors; and the declared ops of the IR under their own names where Keras has no function of that name."""

from difflib import get_close_matches
from typing import Any

from graphc.frontends.custom_gradient import custom_gradient
from graphc.frontends.ops.control import cond, scan, switch, while_loop
from graphc.frontends.ops.dispatch import FUNCTIONS
from graphc.frontends.ops.elementwise import *  # noqa: F403
from graphc.frontends.ops.learning import *  # noqa: F403
from graphc.frontends.ops.nn import *  # noqa: F403
from graphc.frontends.ops.reductions import *  # noqa: F403
from graphc.frontends.ops.shapes import *  # noqa: F403
from graphc.ir.opdef import OPS, OpDef


def _declared(name: str) -> OpDef[..., Any] | None:
    return OPS.get(name.rstrip("_"))


def __getattr__(name: str) -> Any:
    """The declared op `name`."""
    found = _declared(name)
    if found is None:
        near = [] if name.startswith("_") else get_close_matches(name, _functions(), n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; dir(graphc.ops) lists what there is"
        raise AttributeError(f"graphc.ops has no function {name!r}{hint if near or name[0] != '_' else ''}", name=name)
    return found


def _functions() -> list[str]:
    found = (name for name, value in globals().items() if callable(value) and not isinstance(value, type))
    return sorted({*found, *OPS})


def __dir__() -> list[str]:
    return sorted({*globals(), *OPS})
