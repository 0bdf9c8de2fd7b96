"""Integer programs, and what a solver in C prints meanwhile."""

import json
import subprocess
import sys

import numpy as np
from scipy.optimize import Bounds

from graphc.passes.integer_programs import milp

NOISY = """
import ctypes, os, sys
from scipy import optimize

solve, c = optimize.milp, ctypes.CDLL(None)

def noisy(*args, **kwargs):
    c.printf(b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\\n")
    print("solved", file=sys.stderr)
    return solve(*args, **kwargs)

optimize.milp = noisy
"""
PLANNED = """
import json
import numpy as np
from graphc import Input, Model, layers, losses

x = y = Input((64,))
for _ in range(6):
    y = layers.Dense(64, activation="tanh")(y)
model = Model(x, layers.Dense(3)(y))
model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), memory_budget="1MB")
history = model.fit(np.zeros((512, 64)), np.zeros(512), batch_size=512, verbose=0)
print(json.dumps(history.history))
"""


def run(script, cwd):
    return subprocess.run([sys.executable, "-c", NOISY + script], cwd=cwd, text=True, capture_output=True)


def test_a_solver_prints_nothing_into_a_scripts_output(tmp_path):
    done = run(PLANNED, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "solved" in done.stderr
    assert list(json.loads(done.stdout)) == ["loss"]


def test_what_others_print_meanwhile_stays(tmp_path):
    script = """
from graphc.passes.integer_programs import without_lines
import re
c.printf(b"before\\n")
print("of Python, before", flush=True)
with without_lines(re.compile(rb"noise[^\\n]*\\n")):
    c.printf(b"of C, noise 1\\nof C, ")
    c.printf(b"whole\\n")
    os.write(1, b"noise 2\\nof the descriptor\\n")
print("of Python, after")
"""
    *found, last = run(script, tmp_path).stdout.splitlines()
    # C's buffer is of lines or of blocks.
    assert sorted(found[:2]) == ["before", "of Python, before"]
    assert sorted(found[2:]) == ["of C, of C, whole", "of the descriptor"]
    assert last == "of Python, after"


def test_without_a_standard_output_it_solves(tmp_path):
    script = """
os.close(1)
import numpy as np
from graphc.passes.integer_programs import milp
print(milp(np.ones(1), integrality=np.ones(1), bounds=optimize.Bounds(1, 3)).x, file=sys.stderr)
sys.stdout = None
"""
    done = run(script, tmp_path)
    assert done.returncode == 0 and "[1.]" in done.stderr


def test_an_error_puts_the_output_back(capfd):
    try:
        milp(np.ones(1), bounds=Bounds(2, 1), options={"nonsense": object()}, constraints=3)
    except (TypeError, ValueError):
        print("told", flush=True)
    assert capfd.readouterr().out == "told\n"
