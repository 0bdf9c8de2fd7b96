"""What small batches that are accumulated to a big one need to know: the terms of a loss, and what each counts for.

The mean over a big batch is the mean of the small ones' means, each weighted by how much it was taken over. Terms of
one loss may be taken over different things: examples, labels that are not ignored, the sum of sample weights; a sum is
not divided at all, and a penalty on weights is the same in every batch. Gradients of terms that count differently have
to be accumulated apart, so each is a `Part` with a backward pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.frontends import ops
from graphc.frontends.adapters import end_of_forward
from graphc.frontends.recording import Differentiated, Recording, current_recording
from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Block, Value
from graphc.passes.autodiff.joint import Differentiator

EXAMPLES, SUMMED, CONSTANT = "examples", "summed", "constant"
"""Weights of terms: a mean over the examples of a batch, a sum over them, and what does not depend on the batch."""


@dataclass(frozen=True)
class Term:
    """A part of a loss, and what it counts for: `EXAMPLES`, `SUMMED`, `CONSTANT`, or what it was divided by."""

    value: Any
    weight: Any = EXAMPLES
    even: bool = True
    """Whether the weight goes with the number of examples, so that terms of this kind may be accumulated together."""


@dataclass(frozen=True)
class Part:
    """Gradients of one term by each variable, None where it does not depend on it, and the term's weight."""

    gradients: list[Any]
    weight: Any


def joined(terms: Sequence[Term]) -> list[Term]:
    """The terms with those put together that count for the same; there is one of most losses."""
    even = [term for term in terms if term.even]
    summed = [term for term in terms if term.weight is SUMMED]
    constant = [term for term in terms if term.weight is CONSTANT]
    counted = [term for term in terms if not term.even and term.weight is not SUMMED and term.weight is not CONSTANT]
    if even or not (summed or counted):  # what is the same in each batch is also the mean of those
        even, constant = [term for term in terms if term.even or term.weight is CONSTANT], []
    sizes = [term.weight for term in even if term.weight is not EXAMPLES and term.weight is not CONSTANT]
    found = [Term(_sum(even), sizes[0] if len(sizes) == 1 else EXAMPLES)] if even else []
    found += [Term(_sum(summed), SUMMED, False)] if summed else []
    found += counted
    return found + ([Term(_sum(constant), CONSTANT, False)] if constant else [])


def _sum(terms: Iterable[Term]) -> Any:
    total: Any = None
    for term in terms:
        total = term.value if total is None else total + term.value
    return total


def parts(gradients: Sequence[Any], variables: Sequence[Any]) -> list[Part]:
    """The gradients of a loss apart for each of its terms, with weights that are numbers, scalars, or the words above.

    `gradients` are those that `graphc.gradients` gave for the variables. Raises `GraphcError` where there are several
    terms and the gradients are no longer theirs, or are the target's own.
    """
    recording = current_recording()
    if recording is None:
        return [Part(list(gradients), 1.0)]
    terms: list[Term] = recording.loss_terms
    if len(terms) > 1 and recording.gradients == "native":
        raise GraphcError(
            "gradient_accumulation_steps: the loss has terms that count differently in a batch, so their gradients "
            "are taken apart; gradients='native' cannot do that: leave it out, or do not accumulate"
        )
    if recording.gradients != "native" and any(not term.even for term in terms):
        found = _differentiated(recording, gradients, variables, len(terms) > 1)
        builder = Builder.current()
        assert builder is not None
        values = [builder.value(term.value) for term in terms]
        is_whole = _reached(recording.function.block, found.loss, values, found.values)
        if is_whole is False:
            raise GraphcError(
                "gradient_accumulation_steps: what compute_loss gave does not count as a mean over examples does, and "
                "more was added to it; add it by `add_loss`, or do not accumulate"
            )
        if is_whole is None:  # another loss than the one that `compute_loss` gave
            terms = []
        elif len(terms) > 1:
            return _split(recording, found, terms, values, variables)
    return [Part(list(gradients), _resolved(terms[0].weight if terms else EXAMPLES, recording))]


def _resolved(weight: Any, recording: Recording) -> Any:
    if weight is not EXAMPLES:
        return weight
    return 1.0 if recording.batch_size is None else recording.batch_size


def _split(
    recording: Recording,
    found: Differentiated,
    terms: Sequence[Term],
    values: Sequence[Value | None],
    variables: Sequence[Any],
) -> list[Part]:
    """A backward pass for each term."""
    block = recording.function.block
    places = {id(variable): i for i, variable in enumerate(found.variables)}
    made = [value for value in values if value is not None]
    factors = iter(Differentiator(recording.module).gradients(block, found.loss, made, recording.function))
    result: list[Part] = []
    for term, value in zip(terms, values, strict=True):
        factor = None if value is None else next(factors)
        if value is None or factor is None:
            continue
        differentiator = Differentiator(recording.module)
        each = differentiator.backward(block, [(value, factor)], found.values, recording.function)
        chosen = [each[places[id(variable)]] for variable in variables]
        if any(gradient is not None for gradient in chosen):
            result.append(Part(chosen, _resolved(term.weight, recording)))
    end_of_forward(recording)  # the backward passes above read kernels with adapters themselves
    return result


def _differentiated(
    recording: Recording, gradients: Sequence[Any], variables: Sequence[Any], exactly: bool
) -> Differentiated:
    """The last call of `graphc.gradients` by these variables; with `exactly`, the one that gave these gradients."""
    for found in reversed(recording.differentiated):
        known = {id(variable): gradient for variable, gradient in zip(found.variables, found.gradients, strict=True)}
        given = [known.get(id(variable), recording) for variable in variables]
        same = all(gradient is each for gradient, each in zip(gradients, given, strict=True))
        if same or not (exactly or any(each is recording for each in given)):
            return found
    raise GraphcError(
        "gradient_accumulation_steps: the loss has terms that count differently in a batch, so `apply` takes the "
        "gradients as graphc.gradients gave them; let the optimizer clip or scale them, or do not accumulate"
    )


def _reached(block: Block, loss: Value, terms: Sequence[Value | None], wanted: Sequence[Value]) -> bool | None:
    """Whether `loss` depends on `wanted` by the terms only; None where it does not depend on the terms."""
    dependent = set(wanted)
    for op in block:
        if any(value in dependent for value in op.operands):
            dependent.update(op.results)
    ends, starts = set(terms), set(wanted)
    todo, seen, reached, whole = [loss], {loss}, False, True
    while todo:
        value = todo.pop()
        if value in ends:
            reached = True
            continue
        whole = whole and value not in starts
        for operand in () if value.op is None else value.op.operands:
            if operand is not None and operand in dependent and operand not in seen:
                seen.add(operand)
                todo.append(operand)
    return whole if reached else None


class Accumulator:
    """The sum of one part's gradients over batches, each times its weight, and the sum of the weights.

    `sums` has a variable for each one that is trained, by id, `count` is a scalar. A part that is `CONSTANT` needs
    neither: it is what its last gradients are.
    """

    def __init__(self, sums: dict[int, Any], count: Any) -> None:
        self.sums, self.count = sums, count

    def add(self, part: Part, variables: Sequence[Any], is_first: Any) -> None:
        """Add what a batch gives, to nothing where the scalar `is_first` holds."""
        weight = 1.0 if part.weight is SUMMED else part.weight
        for variable, gradient in zip(variables, part.gradients, strict=True):
            if gradient is not None:
                kept = self.sums[id(variable)]
                before = ops.where(is_first, ops.zeros_like(kept), kept)
                kept.assign(before + gradient * ops.cast(weight, gradient.dtype))
        if part.weight is not SUMMED:
            self.count.assign(ops.where(is_first, 0.0, self.count) + ops.cast(weight, "float32"))

    def mean(self, part: Part, variables: Sequence[Any]) -> list[Any]:
        """The gradients of the big batch, None for a variable that the part does not depend on."""
        found: list[Any] = []
        for gradient, variable in zip(part.gradients, variables, strict=True):
            kept = self.sums[id(variable)]
            if gradient is None or part.weight is SUMMED:
                found.append(None if gradient is None else ops.convert_to_tensor(kept))
            else:  # where nothing counts, gradients are 0, as they are without accumulation
                found.append(ops.divide_no_nan(kept, ops.cast(self.count, kept.dtype)))
        return found


__all__ = ["CONSTANT", "EXAMPLES", "SUMMED", "Accumulator", "Part", "Term", "joined", "parts"]
