"""`canonicalize`: one form for what can be written in many, by rewrites that hold for every value, NaN and −0 included.

Constants are folded, what is computed twice in a scope is merged, ops that cancel are dropped, constants stand right.
The rules are in `rules/` by subject.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.module import Module
from graphc.passes.cse import ACROSS_SCOPES, merge_common
from graphc.passes.dce import dce
from graphc.passes.driver import Rule, apply_rules, rules_in
from graphc.passes.registry import register_pass
from graphc.passes.rules import arithmetic, casts, control, convolution, movement
from graphc.passes.rules.folding import folding

RULES = rules_in(arithmetic, casts, movement, convolution, control)


@register_pass("canonicalize")
def canonicalize(module: Module, fold_limit: int = 1024, across_scopes: int = ACROSS_SCOPES) -> None:
    """Fold constants (of up to `fold_limit` elements), merge and drop what is redundant, for every value exactly."""
    simplify(module, [*RULES, folding(fold_limit)], across_scopes)


def simplify(module: Module, rules: Sequence[Rule], across_scopes: int = ACROSS_SCOPES) -> None:
    """Apply rules and merge common ops until neither changes anything, then remove dead ops."""
    merge_common(module, across_scopes)
    while apply_rules(module, rules) and merge_common(module, across_scopes):
        pass
    dce(module)
