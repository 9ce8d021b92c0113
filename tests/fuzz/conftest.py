"""How many cases there were, in the summary of the run; and one thread, as all of them are small."""

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from fuzz.rule import TALLY


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TALLY:
        return
    whole: Counter[str] = Counter()
    for (what, _), cases in TALLY.items():
        whole[what] += cases
    refused = sum(cases for (_, outcome), cases in TALLY.items() if outcome == "refused")
    terminalreporter.section("bad input")
    for what, cases in sorted(whole.items()):
        terminalreporter.line(f"{what}: {cases:,} cases, {TALLY[what, 'refused']:,} refused")
    terminalreporter.line(f"in all: {whole.total():,} cases, {refused:,} refused")
