"""The benchmarks are scripts beside the package: their folder is made importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
