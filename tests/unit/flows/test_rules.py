"""Sampling rules: what a file says, what is wrong with it and where, and which rule fits."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import Range, Rule, RuleBook, When
from spex_proxy.facts.token_budget import TokenBudget
from spex_proxy.flows.rules.keep import RulesInForce
from spex_proxy.flows.rules.match import SEARCHED_CHARACTERS, expression, fits, fits_glob, may_fit, rule_for
from spex_proxy.flows.rules.read import load_rules, read_rules
from spex_proxy.ports.counters import Counters
from spex_proxy.wire.chat import parse
from tests.unit.wire.exchanges import head, raw, reply, said

DEFAULT = Rule("default", When(), 0.5, 0.25, Recipe(budget=64, seed=7))


def refuse_fancy(recipe: Recipe) -> None:
    if recipe.method == "fancy":
        raise SettingsError("method 'fancy' is unknown; there is stack")


def read(text: str) -> RuleBook:
    return read_rules(text, "rules.yaml", DEFAULT, refuse_fancy)


FULL = """
rules:
  - name: legal
    when:
      path: [/v1/chat/completions, /v1/messages]
      header: {X-Team: "legal*"}
      project: default
      model: [llama*, 'qwen-3']
      user: u-17
      tag: {feature: search}
      tool: lookup
      input: '(?i)contract'
      input_chars: {at_least: 10, at_most: 1_000}
      output: refund
      output_chars: {at_least: 1}
      finish_reason: stop
      mean_logprob: {at_most: -1.5}
    capture: 1
    explain: 0.05
    per_minute: 10
    per_day: 500
    tokens_per_minute: 100
    tokens_per_hour: 2_000
    tokens_per_day: 30_000
    priority: flagged
    exact_token_ids: true
    recipe: {segmenter: sentence, masker: delete, value: sum_logprob, method: stack, budget: 512, target_r2: 0.9}
  - {name: rest, explain: 0, priority: 9}
"""


def test_everything_that_a_rule_can_say() -> None:
    legal, rest, default = read(FULL).rules
    assert legal == Rule(
        name="legal",
        when=When(
            path=("/v1/chat/completions", "/v1/messages"),
            header=(("x-team", ("legal*",)),),
            project=("default",),
            model=("llama*", "qwen-3"),
            user=("u-17",),
            tag=(("feature", ("search",)),),
            tool=("lookup",),
            input="(?i)contract",
            input_chars=Range(10, 1000),
            output="refund",
            output_chars=Range(1),
            finish_reason=("stop",),
            mean_logprob=Range(None, -1.5),
        ),
        capture=1.0,
        explain=0.05,
        recipe=Recipe(segmenter="sentence", method="stack", budget=512, target_r2=0.9, seed=7),
        priority=2,
        per_minute=10,
        per_day=500,
        tokens_per_minute=100,
        tokens_per_hour=2_000,
        tokens_per_day=30_000,
        exact_token_ids=True,
    )
    assert legal.budget == TokenBudget(100, 2_000, 30_000)
    assert not rest.budget.is_limited
    assert rest == dataclasses.replace(DEFAULT, name="rest", explain=0.0, priority=9)
    assert default is DEFAULT


def test_the_digest_changes_with_the_file_and_with_the_settings_behind_it() -> None:
    again = read_rules(FULL, "elsewhere.yaml", DEFAULT, refuse_fancy)
    assert read(FULL) == again
    other = read_rules(FULL, "rules.yaml", dataclasses.replace(DEFAULT, explain=0.5), refuse_fancy)
    assert len({again.digest, other.digest, read(FULL + " ").digest}) == 3


@pytest.mark.parametrize("text", ["", "# nothing\n", "rules: []\n"])
def test_a_file_without_rules_leaves_the_settings(text: str) -> None:
    assert read(text).rules == (DEFAULT,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: 3\n", "rules.yaml:1:8: must be a list"),
        ("- a\n", "rules.yaml:1:1: the file must be a mapping of rules"),
        ("rule: []\n", "rules.yaml:1:1: the file has no field 'rule'; there is rules"),
        ("rules:\n  - capture: 1\n", "rules.yaml:2:5: a rule needs a name"),
        ("rules:\n  - {name: a}\n  - {name: a}\n", "rules.yaml:3:5: there is another rule named 'a'"),
        ("rules:\n  - {name: default}\n", "rules.yaml:2:5: there is another rule named 'default'"),
        ("rules:\n  - name: a\n    chance: 1\n", "rules.yaml:3:5: a rule has no field 'chance'; there is name"),
        ("rules:\n  - name: a\n    tokens_per_day: 0\n", "rules.yaml:3:21: must be a whole number, at least 1"),
        (
            "rules:\n  - {name: a, do: {explain: true}, tokens_per_hour: 9}\n",
            "rules.yaml:2:5: a rule that acts does not sample: 'tokens_per_hour' belongs",
        ),
        ("rules:\n  - name: a\n    capture: often\n", "rules.yaml:3:14: must be a number, not 'often'"),
        ("rules:\n  - name: a\n    capture: 1.5\n", "rules.yaml:3:14: must be a share from 0 to 1, not 1.5"),
        ("rules:\n  - name: a\n    explain: .nan\n", "rules.yaml:3:14: must be a number"),
        ("rules:\n  - name: a\n    per_day: 1.5\n", "rules.yaml:3:14: must be a whole number, at least 0, not 1.5"),
        ("rules:\n  - name: a\n    priority: high\n", "rules.yaml:3:15: must be asked, flagged, sampled or a whole"),
        ("rules:\n  - name: a\n    priority: 0\n", "rules.yaml:3:15: must be a whole number, at least 1, not 0"),
        ("rules:\n  - name: a\n    exact_token_ids: 1\n", "rules.yaml:3:22: must be true or false, not '1'"),
        ("rules:\n  - name: a\n    name: b\n", "rules.yaml:3:5: 'name' stands here twice"),
        ("rules:\n  - name: a\n    when: {input: '(a'}\n", "rules.yaml:3:19: is no regular expression of RE2: missing"),
        ("rules:\n  - name: a\n    when: {output: '(?=a)'}\n", "rules.yaml:3:20: is no regular expression of RE2"),
        ("rules:\n  - name: a\n    when: {output: 'a{1000}{1000}'}\n", "rules.yaml:3:20: is no regular expression"),
        ("rules:\n  - name: a\n    when: {path: /v1/embeddings}\n", "rules.yaml:3:18: '/v1/embeddings' is not"),
        ("rules:\n  - name: a\n    when: {input_chars: {at_least: 2, at_most: 1}}\n", "rules.yaml:3:25: nothing is at"),
        ("rules:\n  - name: a\n    when: {header: x}\n", "rules.yaml:3:20: must be a mapping of names"),
        ("rules:\n  - name: a\n    when: {model: null}\n", "rules.yaml:3:19: must be a text"),
        ("rules:\n  - name: a\n    recipe: {budget: 4}\n", "rules.yaml:3:22: must be a whole number, at least 8"),
        ("rules:\n  - name: a\n    recipe: {plugins: x}\n", "rules.yaml:3:14: a recipe has no field 'plugins'"),
        ("rules:\n  - name: a\n    recipe: {method: fancy}\n", "rules.yaml:3:13: method 'fancy' is unknown"),
        ("rules:\n  - name: a\n    when: {flag: x}\n", "rules.yaml:2:5: `flag` and `rate` are for rules that act"),
        ("rules:\n  - name: a\n    capture: 1\n    do: {explain: true}\n", "rules.yaml:2:5: a rule that acts does not"),
        ("rules:\n  - name: a\n    do: {}\n", "rules.yaml:3:9: there is nothing to do"),
        ("rules:\n  - name: a\n    do: {webhook: 'ftp://x'}\n", "rules.yaml:3:19: must be an address"),
        ("rules:\n  - name: a\n    recipe: {target: it}\n", "rules.yaml:3:22: 'it' is no target"),
        ("flaggers:\n  - flag: a\n", "rules.yaml:2:5: a flagger's name is needed"),
        ("rules:\n  - &x {name: a}\n  - *x\n", "rules.yaml:3:5: aliases"),
        ("rules: [\n", "rules.yaml:2:1: "),
        ("rules:\n\t- a\n", "rules.yaml:2:1: "),
        ("a: \x00\n", "rules.yaml: this is not YAML"),
        ("rules: " + "[" * 5000, "rules.yaml"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(text)
    assert said in str(error.value)


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        read("rules:\n  - {name: a, capture: 2}\n  - {name: b, explain: x}\n")
    assert str(error.value).splitlines() == [
        "these rules can't work:",
        "  rules.yaml:2:24: must be a share from 0 to 1, not 2",
        "  rules.yaml:3:24: must be a number, not 'x'",
    ]


@given(st.text())
def test_any_text_is_rules_or_a_settings_error(text: str) -> None:
    for candidate in (text, f"rules:\n  - name: {text}\n", f"rules:\n  - name: a\n    when: {{input: {text}}}\n"):
        try:
            book = read(candidate)
        except SettingsError:
            continue
        assert book.rules[-1] is DEFAULT


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"rules: \xff")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 300_000)
    for name, words in (("none.yaml", "No such file"), ("latin.yaml", "not UTF-8"), ("huge.yaml", "longer than")):
        with pytest.raises(SettingsError, match=words):
            load_rules(tmp_path / name, DEFAULT, refuse_fancy)


# ------------------------------------------------------------------------------------------ matching


@given(st.lists(st.text("ab", max_size=3), max_size=4), st.text("ab", max_size=8))
def test_globs_fit_as_their_definition_says(pieces: list[str], value: str) -> None:
    def slowly(parts: list[str], rest: str) -> bool:
        if len(parts) == 1:
            return rest == parts[0]
        if not rest.startswith(parts[0]):
            return False
        after = rest[len(parts[0]) :]
        return any(slowly(["", *parts[1:]][1:], after[skip:]) for skip in range(len(after) + 1))

    pattern = "*".join(pieces)
    assert fits_glob(pattern, value) == slowly(pattern.split("*"), value)


TOOLS = [{"type": "function", "function": {"name": "lookup"}}]
REQUEST = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "My CONTRACT?"}],
    "user": "u-17", "metadata": {"feature": "search", "n": 3}, "tools": TOOLS,
}  # fmt: skip
LOGPROBS = {"content": [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -3.0}]}
HEAD = head(headers=((b"x-team", b"other"), (b"x-team", b"legal-eu")))


def exchange(**changes: Any) -> Exchange:
    understood = parse(raw(REQUEST | changes, reply(said("A refund is due."), logprobs=LOGPROBS)))
    assert isinstance(understood, Exchange)
    return understood


YES = [
    When(), When(path=("/v1/chat/*",)), When(header=(("x-team", ("legal*",)),)), When(project=("default", "x")),
    When(model=("m-*",)), When(user=("u-17",)), When(tag=(("feature", ("sea*",)),)), When(tool=("x", "lookup")),
    When(input="(?i)contract"), When(input="^Be brief"), When(output="refund"), When(finish_reason=("stop",)),
    When(input_chars=Range(20)), When(output_chars=Range(16, 16)), When(mean_logprob=Range(-2, -2)),
]  # fmt: skip
NO = [
    When(path=("/v1/messages",)), When(header=(("x-team", ("legal",)),)), When(header=(("x-other", ("*",)),)),
    When(project=("x",)), When(model=("m",)), When(user=("u-1",)), When(tag=(("feature", ("x",)),)),
    When(tag=(("n", ("3",)),)), When(tag=(("none", ("*",)),)), When(tool=("look",)), When(input="contract"),
    When(input="^My.*brief"), When(output="^refund"), When(finish_reason=("length",)), When(input_chars=Range(9999)),
    When(output_chars=Range(17)), When(mean_logprob=Range(-1.9)), When(user=("u-17",), model=("m",)),
]  # fmt: skip


@pytest.mark.parametrize(("when", "expected"), [(w, True) for w in YES] + [(w, False) for w in NO])
def test_a_rule_fits_if_all_that_it_says_is_so(when: When, expected: bool) -> None:
    assert fits(when, HEAD, exchange()) is expected
    if expected:
        assert may_fit(when, HEAD, "default")


def test_what_is_not_there_does_not_fit() -> None:
    bare = parse(raw(answer=reply(said("Hello"))))
    assert isinstance(bare, Exchange)
    for when in (When(user=("*",)), When(tool=("*",)), When(tag=(("a", ("*",)),)), When(mean_logprob=Range())):
        assert not fits(when, head(), bare)


def test_the_first_rule_that_fits_decides() -> None:
    rules = [dataclasses.replace(DEFAULT, name=str(n), when=when) for n, when in enumerate((NO[4], YES[4], YES[0]))]
    assert rule_for(RuleBook("d", (*rules, DEFAULT)), HEAD, exchange()).name == "1"


def test_expressions_take_linear_time() -> None:
    """With `re`, this pattern would not end on this text before the sun does."""
    text = "a" * (SEARCHED_CHARACTERS - 2) + "b!"
    assert expression(r"(a+)+$").search(text) is None
    assert not fits(When(input=r"^(a|aa)+$"), HEAD, exchange(messages=[{"role": "user", "content": text}]))


def test_only_the_beginning_of_a_text_is_searched() -> None:
    late = {"messages": [{"role": "user", "content": "x" * SEARCHED_CHARACTERS + "needle"}]}
    assert not fits(When(input="needle"), HEAD, exchange(**late))
    assert fits(When(input="x$"), HEAD, exchange(**late))


# ----------------------------------------------------------------------------------- rules that change


class File:
    """A rules file on disk, and the rules in force."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counters = Counters()
        self.accepted: list[str] = []
        self.write("rules: [{name: one}]")

    def write(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)

    def rules(self) -> RulesInForce:
        return RulesInForce(
            lambda: load_rules(self.path, DEFAULT, refuse_fancy),
            self.path,
            self.counters,
            lambda book: self.accepted.append(book.rules[0].name),
            poll_s=0.01,
        )


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "rules.yaml")


def test_a_changed_file_is_in_force_and_an_unchanged_one_is_not_read_again(file: File) -> None:
    rules = file.rules()
    assert not rules.look()
    file.write("rules: [{name: two}]")
    assert rules.look()
    assert rules.book.rules[0].name == "two"
    assert not rules.look()
    assert (file.accepted, file.counters.value("rules_loaded", "accepted")) == (["two"], 1)


@pytest.mark.parametrize("harm", ["rules: [{name: two, capture: 7}]", "rules: [", None])
def test_a_file_with_an_error_leaves_the_old_rules_loudly(
    file: File, harm: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    rules = file.rules()
    file.path.unlink() if harm is None else file.write(harm)
    assert not rules.look()
    assert rules.book.rules[0].name == "one"
    assert rules.trouble is not None
    assert "the old ones" in rules.trouble
    assert str(file.path) in rules.trouble
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert (file.counters.value("rules_loaded", "refused"), file.counters.value("rules_stale")) == (1, 1)
    file.write("rules: [{name: three}]")
    assert rules.look()
    assert (rules.trouble, rules.book.rules[0].name, file.counters.value("rules_stale")) == (None, "three", 0)


def test_a_file_with_an_error_at_the_start_is_refused(file: File) -> None:
    file.write("rules: 3")
    with pytest.raises(SettingsError):
        file.rules()


def test_the_file_is_looked_at_by_itself_and_every_version_is_told(file: File) -> None:
    rules = file.rules()
    rules.start()
    file.write("rules: [{name: two}]")
    patience = time.monotonic() + 20
    while file.accepted != ["one", "two"] and time.monotonic() < patience:
        time.sleep(0.005)
    rules.close()
    assert file.accepted == ["one", "two"]
