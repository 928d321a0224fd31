#!/usr/bin/env bash
# A nan among the linear costs, in three solvers, none of which says a word:
# daqp 0.11.0 returns exitflag 1 (optimal) with x = nan; quadprog 0.1.14 returns nan and raises nothing;
# highspy 1.16.0 takes a linear program with such a cost, answers kOk twice and reports "Optimal" with a finite x.
# scs 3.3.1 refuses, and osqp 1.1.3 ends with "maximum iterations reached".
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 daqp==0.11.0 quadprog==0.1.14 highspy==1.16.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import daqp
import highspy
import numpy as np
import quadprog

P, A, b = np.array([[4.0, 1.0], [1.0, 2.0]]), np.ones((1, 2)), np.ones(1)
q = np.array([np.nan, 1.0])

x, value, flag, _ = daqp.solve(P, q, A, b, b, np.array([5], dtype=np.int32))
print("daqp: exitflag", flag, "x", x)
ok = flag == 1 and np.isnan(x).all()

x = quadprog.solve_qp(P, -q, A.T, b, 1)[0]
print("quadprog: x", x)
ok &= np.isnan(x).all()

solver = highspy.Highs()
solver.setOptionValue("output_flag", False)
lp = highspy.HighsLp()
lp.num_col_, lp.num_row_ = 2, 1
lp.col_cost_, lp.col_lower_, lp.col_upper_ = q, np.zeros(2), np.ones(2)
lp.row_lower_ = lp.row_upper_ = b
lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = np.array([0, 1, 2]), np.array([0, 0]), np.ones(2)
loaded, ran = solver.passModel(lp), solver.run()
status = solver.modelStatusToString(solver.getModelStatus())
x = np.array(solver.getSolution().col_value)
print("highspy:", loaded, ran, status, "x", x)
ok &= loaded == ran == highspy.HighsStatus.kOk and status == "Optimal" and np.isfinite(x).all()

print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
