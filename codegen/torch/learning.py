"""How ops of learning are spelled in PyTorch: attention, losses, tables of embeddings, sorting, random words."""

from __future__ import annotations

from graphc.codegen.numpy.spelling import bernoulli, fold_in, loss_options
from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.source.geometry import may_be_empty
from graphc.ir.graph import Op


def attention(op: Op) -> Spelled | None:
    """torch's own has no softcap, and takes its heads before its places. A key of NaN that a mask hides spoils it."""
    *_, bias, mask = op.operands
    attributes = op.attribute_dict
    if attributes["softcap"] is not None or any(x is not None and x.ndim < 2 for x in (bias, mask)):
        return None
    window, causal = attributes["window"], attributes["causal"]
    plain = window is None and bias is None and mask is None
    seen = "{4}" if mask is not None else ""
    if window is not None or (causal and not plain):
        options = [*(["causal=True"] if causal else []), *([f"window={window}"] if window is not None else [])]
        near = f"visible({{0}}.shape[1], {{1}}.shape[1], {', '.join(options)})"
        seen = f"{seen} & {near}" if seen else near
    if bias is not None:
        seen = f"torch.where({seen}, {{3}}, -torch.inf)" if seen else "{3}"
    arguments = [f"{{{i}}}.transpose(1, 2)" for i in range(3)]
    if seen:
        arguments.append(f"attn_mask={seen}")
    elif causal:
        arguments.append("is_causal=True")
    if attributes["scale"] is not None:
        arguments.append("scale={scale}")
    if _heads(op, 0) != _heads(op, 1):
        arguments.append("enable_gqa=True")
    return f"F.scaled_dot_product_attention({', '.join(arguments)}).transpose(1, 2)"


def _heads(op: Op, index: int) -> object:
    return op.operands[index].type.shape[2]  # type: ignore[union-attr]


def sparse_cross_entropy(op: Op) -> Spelled | None:
    logits = op.operands[0]
    assert logits is not None
    if logits.dtype.bits < 32 or may_be_empty(logits.type, tuple(range(logits.ndim))):
        return None
    return f"sparse_cross_entropy({', '.join(['{0}', '{1}', *loss_options(op.attribute_dict)])})"


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
    "sparse_cross_entropy": sparse_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "sort": sort,
    "random_bernoulli": bernoulli,
    "random_fold_in": fold_in,
    "random_split": "split_key({0}, {count})",
    "threefry": "threefry({0}, {1}, {2})",
}
