"""Quickstart: declare a φ⁴ theory, check it and sample it.

Read estimates with errors, and the verdict.
"""

import os

import phi4ppl as p4

draws = 200 if os.environ.get("PHI4PPL_TINY") == "1" else 2000

model = p4.phi4(p4.lattice.square(8), w=1.0, a=1.52425, b=0.175)
print(model.describe())
print(model.check())

tree = p4.sample(model, num_warmup=draws // 2, num_samples=draws, seed=1)
print(p4.estimate(tree))

report = p4.diagnose(tree)
print(report)
print("report:", report.to_html("quickstart.html"))
print("draws: ", p4.save_run(tree, "quickstart.nc"))
