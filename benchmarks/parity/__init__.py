"""Compare ilqljax with numbers of the original PyTorch implementation, case by case.

A folder of cases holds `cases.json` (dialogues and options in the original's spelling) and one `NAME.npz` a case with
initial parameters and what the original computed from them. Everything is rebuilt from dialogues and parameters alone.
Where the original does on purpose what we do not (DOMAIN 2.2 to 2.4), its way is rebuilt here, and the note says so.
"""

from benchmarks.parity.cases import Case, load_cases, rebuild_case
from benchmarks.parity.comparison import Comparison
from benchmarks.parity.report import compare_case, format_comparison
from benchmarks.parity.training import compare_training

__all__ = [
    "Case",
    "Comparison",
    "compare_case",
    "compare_training",
    "format_comparison",
    "load_cases",
    "rebuild_case",
]
