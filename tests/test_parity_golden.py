"""The original's numbers, all of them: data, outputs, losses, gradients, three AdamW steps, scores and beams."""

from pathlib import Path

import pytest

from benchmarks.parity import compare_case, load_cases, rebuild_case

LOCAL = Path(__file__).parent / "golden"
LOCAL_CASES = ("bc_single", "ilql_shared_single_q")
SHARED_CASES = (
    "bc_multi_transition",
    "ilql_awac_joint",
    "ilql_default",
    "ilql_mc_dm_clip",
    "ilql_no_prompt_token_reward",
    "utterance_ilql",
)


def check(folder: Path, name: str) -> None:
    rows = list(compare_case(rebuild_case(folder, name, cases=load_cases(folder))))
    assert sum(row.compared for row in rows) > 25
    wrong = [row for row in rows if not row.ok]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("name", LOCAL_CASES)
def test_all_quantities_equal_the_original(name):
    check(LOCAL, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED_CASES)
def test_all_quantities_equal_the_original_on_all_cases(name, shared_dir):
    check(shared_dir / "golden", name)
