"""`verify`: right targets pass, wrong ones fail, and those that cannot run say so."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import codegen
from graphc.codegen.target import Target
from graphc.tools import verification, verification_worker
from graphc.tools.own_error import EXACT, SUMS
from graphc.tools.report import Report, Row
from graphc.tools.verification import compare, verify, verify_artifact

MODEL = """
func @f(%x: f32[B, 64] input, %y: f32[64, 8] input) -> (logits: f32[B, 8], best: i32[B]) {
  %0 = matmul %x, %y : f32[B, 8]
  %1 = softmax %0 : f32[B, 8]
  %2 = argmax %1 {axis = 1} : i32[B]
  return %1, %2
}
"""
COUNTER = """
weight "count" : f32[] = 0.0

func @step(%x: f32[] input, %count: f32[] state "count") -> (old: f32[], new: f32[] updates %count) {
  %0 = add %count, %x : f32[]
  return %count, %0
}
"""


class Pretender(Target):
    """The numpy target, whose results `spoil` changes."""

    name = "pretender"
    extra = "pretence"

    def __init__(self, spoil=lambda array: array, modules=(), supported=True):
        self.numpy = codegen.target("numpy")
        self.spoil, self.modules, self.supported = spoil, modules, supported

    def supports(self, op):
        return self.supported and self.numpy.supports(op)

    def write(self, module, folder):
        return self.numpy.write(module, folder)

    def load(self, folder):
        def spoiled(run):
            return lambda *inputs: tuple(self.spoil(array) for array in run(*inputs))

        loaded = self.numpy.load(folder)
        loaded.entries = {name: spoiled(run) for name, run in loaded.entries.items()}
        return loaded


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Adds a target; workers answer in this process, as another one does not know it."""

    def add(**options):
        found = {"numpy": codegen.target("numpy"), "pretender": Pretender(**options)}
        monkeypatch.setattr(codegen, "_found", lambda: found)

    def ask(request):  # several at a time, from threads
        return verification_worker.answer(request, Path(tempfile.mkdtemp(dir=tmp_path)))

    monkeypatch.setattr(verification, "_ask_worker", ask)
    return add


def test_the_targets_are_right_in_processes_of_their_own():
    report = verify(graphc.parse(MODEL), "numpy,torch")
    assert report.ok, str(report)
    assert [(row.target, row.output) for row in report.rows] == [
        (target, output) for target in ("numpy", "torch") for output in ("logits", "best")
    ]
    assert all(row.draws == 3 for row in report.rows)
    assert report.rows[0].max_abs > 0
    assert report.reference[0].target == "(float32 itself)" and report.reference[0].units < 2


@pytest.mark.parametrize(
    ("spoil", "ok"),
    [
        (lambda a: a, True),
        (lambda a: a * np.float32(1 + 1e-7) if a.dtype == np.float32 else a, True),
        (lambda a: a * np.float32(1 + 1e-4) if a.dtype == np.float32 else a, False),
        (lambda a: np.where(a == a.max(), np.nan, a).astype(a.dtype) if a.dtype == np.float32 else a, False),
        (lambda a: a + 1 if a.dtype == np.int32 else a, False),
        (lambda a: a.astype(np.float64), False),
        (lambda a: a[:1], False),
    ],
)
def test_what_is_off_fails(pretend, spoil, ok):
    pretend(spoil=spoil)
    report = verify(graphc.parse(MODEL), "all")
    found = {row.target: row.ok for row in report.rows if row.ok is not True}
    assert report.ok == ok and set(found) == (set() if ok else {"pretender"}), str(report)


def test_all_targets_include_those_that_cannot_run(pretend):
    pretend(modules=("a_framework_that_is_not_there",))
    report = verify(graphc.parse(MODEL))
    assert report.ok
    assert "pretender: not installed: pip install 'graphc[pretence]'" in str(report)
    with pytest.raises(graphc.TargetError, match=r"graphc\[pretence\]"):
        verify(graphc.parse(MODEL), ["pretender"])


def test_a_target_that_lacks_an_op_is_not_checked_unless_named(pretend):
    pretend(supported=False)
    report = verify(graphc.parse(MODEL))
    assert report.ok and [row.ok for row in report.rows if row.target == "pretender"] == [None]
    with pytest.raises(graphc.UnsupportedError, match="lacks"):
        verify(graphc.parse(MODEL), "pretender")


def test_a_target_that_crashes_fails(pretend):
    def crash(array):
        raise RuntimeError("out of order")

    pretend(spoil=crash)
    report = verify(graphc.parse(MODEL))
    assert not report.ok and "pretender: RuntimeError: out of order" in str(report)


def test_a_worker_that_dies_fails(monkeypatch):
    monkeypatch.setattr(verification.sys, "executable", "/bin/false")
    report = verify(graphc.parse(MODEL), "numpy")
    assert not report.ok and "its process ended with status 1" in str(report)


def test_given_inputs_are_used(pretend):
    pretend()
    x = np.full((3, 64), 1e30, np.float32)
    report = verify(graphc.parse(MODEL), "numpy", inputs={"x": x, "y": np.ones((64, 8), np.float32)})
    assert report.ok and report.rows[0].draws == 1
    with pytest.raises(graphc.GraphcError, match="misses the input 'y'"):
        verify(graphc.parse(MODEL), "numpy", inputs=[x])


def test_special_values_are_drawn_on_request(pretend):
    pretend()
    report = verify(graphc.parse(MODEL), "numpy", special_values=True)
    assert report.ok, str(report)
    assert report.rows[0].draws == 6


def test_state_is_followed_over_calls(pretend):
    pretend()
    assert verify(graphc.parse(COUNTER), "numpy").ok
    pretend(spoil=lambda array: array * 0)
    assert not verify(graphc.parse(COUNTER), "pretender").ok


def test_an_artifact_is_what_is_checked(pretend, tmp_path):
    module = graphc.parse(MODEL)
    graphc.compile(module, target="numpy").save(tmp_path / "artifact")
    assert verify_artifact(module, tmp_path / "artifact", "numpy").ok
    other = graphc.parse(MODEL.replace("argmax", "argmin"))
    assert not verify_artifact(other, tmp_path / "artifact", "numpy").ok


def test_cancellation_is_no_mistake_of_the_target():
    text = """
    func @f(%x: f32[B, 1024] input) -> f32[B] {
      %0 = constant {value = 10000.0, dtype = f32} : f32[]
      %1 = add %x, %0 : f32[B, 1024]
      %2 = sub %1, %0 : f32[B, 1024]
      %3 = reduce_sum %2 {axes = [1]} : f32[B]
      return %3
    }"""
    report = verify(graphc.parse(text), "numpy", passes="")
    assert report.ok and report.rows[0].max_rel > 1e-4, str(report)


def test_comparing_by_hand():
    wide = np.array([1.0, np.inf, np.nan, 1e300])
    narrow = np.float32([1.0, np.inf, np.nan, np.inf])
    own = np.array([1e-7, 0, 0, 0])
    assert compare(narrow, wide, narrow, own)[2] == 0
    assert compare(narrow + np.float32(2e-7), wide, narrow, own)[2] == pytest.approx(2.4, rel=0.1)
    assert compare(np.float32([1, -np.inf, np.nan, np.inf]), wide, narrow, own)[2] == np.inf
    assert compare(np.float32([1, np.inf, 0, np.inf]), wide, narrow, own)[2] == np.inf
    flipped, decided = np.array([1, 0]), np.array([np.inf, 0.0])
    assert compare(np.array([0, 0]), flipped.astype(float), flipped, decided)[2] == 0
    assert compare(np.array([1, 1]), flipped.astype(float), flipped, decided)[2] == np.inf


def test_a_report_as_page_and_json(tmp_path):
    rows = (
        Row("numpy", "f", "y<0>", True, 3, 1e-7, 2e-7, 0.5),
        Row("torch", "f", "y<0>", False, 3, np.inf, np.inf, np.inf),
        Row("jax", "", "", None, note="not installed"),
    )
    report = Report(rows)
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "y&lt;0&gt;" in page and "A check did not hold." in page and "FAILED" in page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert report.to_json()["rows"][2]["ok"] is None and not report.ok
    assert not Report((rows[2],)).ok, "a report without any check proves nothing"


def test_the_tables_of_ops_name_ops():
    from graphc.ir.opdef import OPS

    assert set(OPS) >= EXACT | SUMS


def test_a_fault_of_a_quantized_model_is_told_from_the_error_of_its_format(pretend):
    kernel = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    text = MODEL.replace("%y: f32[64, 8] input", '%y: f32[64, 8] param "kernel"').replace(
        "\nfunc", 'weight "kernel" : f32[64, 8]\nfunc', 1
    )
    module = graphc.parse(text, {"kernel": kernel})
    pretend(spoil=lambda array: array * np.float32(1.001) if array.dtype.kind == "f" else array)
    report = verify(module, "numpy,pretender", passes="quantize{format=int4}")
    assert {row.target for row in report.rows if not row.ok} == {"pretender"}, str(report)
    (logits, _) = report.by_design
    assert logits.ok is None and logits.max_abs > 0.01, "the format itself is off by more than the fault"
    assert "That reference is of the model after `quantize`." in str(report)
