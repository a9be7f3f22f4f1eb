"""The examples in docs/library.md run, and print what the comments beside them say."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

from spex_proxy import Study

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text()


def test_the_examples_run_and_say_what_they_promise() -> None:
    known: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        with redirect_stdout(io.StringIO()) as said:
            exec(example, known)
        for promised in re.findall(r"print\(.*\)  # ([^:\n]+)", example):
            if promised[0] in "[-" or "×" in promised or " " not in promised:
                assert promised in said.getvalue(), promised


def test_every_part_of_a_study_is_on_the_page() -> None:
    public = [name for name in vars(Study) if not name.startswith("_") and callable(getattr(Study, name))]
    assert [name for name in public if f"study.{name}" not in PAGE and f"Study.{name}" not in PAGE] == []
