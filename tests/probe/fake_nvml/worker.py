"""Probe once for every line on stdin and answer with one line of JSON.

A process of its own, because the loader finds the stand-in by LD_LIBRARY_PATH, which only counts
when a process starts, and because one that hangs can be ended.
"""

import dataclasses
import json
import os
import sys

from nemofit.probe import probe
from nemofit.probe.site import Site

for line in sys.stdin:
    case = json.loads(line)
    os.environ["NEMOFIT_FAKE_NVML"] = case["script"]
    machine = probe(
        Site(
            root=case["root"],
            environ=case["environ"],
            libraries=True,
            deadline_s=case["deadline_s"],
        )
    )
    sys.stdout.write(json.dumps(dataclasses.asdict(machine)) + "\n")
    sys.stdout.flush()
