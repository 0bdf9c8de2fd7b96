"""How ops of learning are spelled in PyTorch: attention, losses, tables of embeddings, sorting, random words."""

from __future__ import annotations

from graphc.codegen.numpy.spelling import bernoulli, fold_in, loss_options
from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.source.geometry import may_be_empty
from graphc.codegen.source.rotation import rope
from graphc.ir.graph import Op


def attention(op: Op) -> Spelled | None:
    options = attention_options(op, 0)
    if options is None:
        return None
    arguments = ", ".join(["{0}.transpose(1, 2)", "{1}.transpose(1, 2)", "{2}.transpose(1, 2)", *options])
    return f"F.scaled_dot_product_attention({arguments}).transpose(1, 2)"


def attention_gradient(op: Op) -> Spelled | None:
    """By torch's own, unless there is a bias, which wants its gradient too."""
    options = attention_options(op, 2)
    if options is None or op.operands[5] is not None or op.results[0].dtype.bits < 32:
        return None
    return f"attention_gradient({', '.join(['{0}', '{2}', '{3}', '{4}', *options])})"


def with_logsumexp(op: Op) -> Spelled | None:
    """Attention or its gradient with the logarithms of sums, as PyTorch has them: for heads of one number and size."""
    query, key, value = op.operands[-3:]
    assert query is not None and key is not None and value is not None
    if query.dtype.bits < 32 or query.type.shape[2:] != value.type.shape[2:] or key.type.shape[2] != query.shape[2]:
        return None
    if may_be_empty(query.type, (1,)) or may_be_empty(key.type, (1,)):
        return None
    options = ["is_causal=True"] if op.attribute_dict["causal"] else []
    options += ["scale={scale}"] if op.attribute_dict["scale"] is not None else []
    slots = [f"{{{i}}}" for i in range(len(op.operands))]
    return f"{op.name}({', '.join([*slots, *options])})"


def attention_options(op: Op, first: int) -> list[str] | None:
    """The arguments of torch's attention beside query, key and value, which are the operands from `first` on.

    It has no softcap. A key of NaN that a mask hides spoils its result.
    """
    bias, mask = op.operands[first + 3 :]
    attributes = op.attribute_dict
    if attributes["softcap"] is not None or any(x is not None and x.ndim < 2 for x in (bias, mask)):
        return None
    window, causal = attributes["window"], attributes["causal"]
    plain = window is None and bias is None and mask is None
    seen = f"{{{first + 4}}}" if mask is not None else ""
    if window is not None or (causal and not plain):
        choice = [*(["causal=True"] if causal else []), *([f"window={window}"] if window is not None else [])]
        near = f"visible({{{first}}}.shape[1], {{{first + 1}}}.shape[1], {', '.join(choice)})"
        seen = f"{seen} & {near}" if seen else near
    if bias is not None:
        seen = f"torch.where({seen}, {{{first + 3}}}, -torch.inf)" if seen else f"{{{first + 3}}}"
    options: list[str] = []
    if seen:
        options.append(f"attn_mask={seen}")
    elif causal:
        options.append("is_causal=True")
    if attributes["scale"] is not None:
        options.append("scale={scale}")
    if _heads(op, first) != _heads(op, first + 1):
        options.append("enable_gqa=True")
    return options


def _heads(op: Op, index: int) -> object:
    return op.operands[index].type.shape[2]  # type: ignore[union-attr]


def sparse_cross_entropy(op: Op) -> Spelled | None:
    logits = op.operands[0]
    assert logits is not None
    if logits.dtype.bits < 32 or may_be_empty(logits.type, tuple(range(logits.ndim))):
        return None
    return f"sparse_cross_entropy({', '.join(['{0}', '{1}', *loss_options(op.attribute_dict)])})"


def sparse_cross_entropy_gradient(op: Op) -> Spelled | None:
    logits = op.operands[1]
    assert logits is not None
    if logits.dtype.bits < 32 or may_be_empty(logits.type, tuple(range(logits.ndim))):
        return None
    return f"sparse_cross_entropy_gradient({', '.join(['{0}', '{1}', '{2}', *loss_options(op.attribute_dict)])})"


def binary_cross_entropy(op: Op) -> Spelled | None:
    x, target = op.operands
    assert x is not None and target is not None
    if x.type.shape != target.type.shape:
        return None
    return 'F.binary_cross_entropy_with_logits({0}, {1}, reduction="none")'


def embedding(op: Op) -> Spelled:
    table = op.operands[0]
    assert table is not None
    ids = "{1}.clamp(0, {0}.shape[0] - 1)"
    if table.ndim == 2 and op.operands[1].dtype in ("int32", "int64"):  # type: ignore[union-attr]
        return f"F.embedding({ids}, {{0}})"
    return "take({0}, {1}, 0)"


def sort(op: Op) -> Spelled:
    axis = op.attribute_dict["axis"]
    return f"{{0}}.sort(dim={axis}, stable=True)[0]" if len(op.operands) == 1 else f"sort({axis}, {{*}})"


LEARNING: dict[str, Spelling] = {
    "embedding": embedding,
    "attention": attention,
    "attention_gradient": attention_gradient,
    "attention_with_logsumexp": with_logsumexp,
    "attention_gradient_with_logsumexp": with_logsumexp,
    "rope": rope,
    "sparse_cross_entropy": sparse_cross_entropy,
    "sparse_cross_entropy_gradient": sparse_cross_entropy_gradient,
    "binary_cross_entropy": binary_cross_entropy,
    "sort": sort,
    "random_bernoulli": bernoulli,
    "random_fold_in": fold_in,
    "random_split": "split_key({0}, {count})",
    "threefry": "threefry({0}, {1}, {2})",
}
