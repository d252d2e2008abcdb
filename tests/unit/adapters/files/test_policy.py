"""The policy file: what it means, what is refused and in which words, and how it is reread."""

import logging
import os
from pathlib import Path

import pytest

from pointsman_server.adapters.files.policy import LARGEST_BYTES, PolicyError, load_policy, parse_policy, read_policy
from pointsman_server.auth.permissions import Policy, Rule
from pointsman_server.domain.identity import AccessRole, Grant, Pattern
from pointsman_server.runtime.refreshed import Refreshed

GOOD = """
[[grant]]
subjects = ["jwt:alice", "spiffe://example.org/ns/payments/*", "key:ci-*"]
roles = ["writer", "reader"]
tenants = ["team-a"]
envs = ["staging"]

[[grant]]
claim = "groups"
value = "platform"
roles = ["admin"]
tenants = ["*"]
"""
RULE = 'subjects = ["jwt:alice"]\nroles = ["reader"]\ntenants = ["team-a"]\n'


def test_a_policy_is_a_rule_for_each_table() -> None:
    subjects = (Pattern("jwt:alice"), Pattern("spiffe://example.org/ns/payments/*"), Pattern("key:ci-*"))
    writing = Grant(frozenset({AccessRole.WRITER, AccessRole.READER}), (Pattern("team-a"),), (Pattern("staging"),))
    everything = Grant(frozenset({AccessRole.ADMIN}), (Pattern("*"),), (Pattern("*"),))
    assert parse_policy(GOOD.encode(), "p.toml") == Policy(
        (
            Rule("grant 1 of p.toml", (writing,), subjects),
            Rule("grant 2 of p.toml", (everything,), (), "groups", "platform"),
        )
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "p.toml grants nothing to anybody: add [[grant]]"),
        ("grant = 3", "p.toml: grant is no list of tables: write [[grant]]"),
        ("[grant]\n" + RULE, "p.toml: grant is no list of tables: write [[grant]]"),
        ("grant = [1]", "p.toml: grant is no list of tables"),
        ("[[grants]]\n" + RULE, "p.toml: grants is unknown: a policy consists of [[grant]]"),
        ("[[grant]\n", "p.toml is no TOML:"),
        ("x = " + "[" * 100_000, "p.toml is no TOML:"),
        ("x = " + "9" * 10_000, "p.toml is no TOML:"),
        ("[[grant]]\n" + RULE + "subject = 1", "grant 1 of p.toml: subject is unknown: did you mean subjects?"),
        ("[[grant]]\n" + RULE + "deny = 1", "grant 1 of p.toml: deny is unknown: the keys are subjects, claim,"),
        (
            '[[grant]]\nroles = ["reader"]\ntenants = ["a"]',
            "grant 1 of p.toml: has neither subjects nor a claim: say whom it is for",
        ),
        ("[[grant]]\n" + RULE + 'claim = "g"', "grant 1 of p.toml: has no value: claim and value go together"),
        ("[[grant]]\n" + RULE + 'value = "g"', "grant 1 of p.toml: has no claim: claim and value go together"),
        ("[[grant]]\n" + RULE + 'claim = "g"\nvalue = true', "grant 1 of p.toml: value must be a text"),
        ("[[grant]]\n" + RULE + 'claim = ""\nvalue = "x"', "grant 1 of p.toml: claim must be a text"),
        (f"[[grant]]\n{RULE}[[grant]]\n{RULE.replace('reader', 'root')}", "grant 2 of p.toml: roles: there is no role"),
        ("[[grant]]\n" + RULE.replace('["reader"]', "[]"), "grant 1 of p.toml: roles must be a list of texts"),
        ("[[grant]]\n" + RULE.replace('["reader"]', '"reader"'), "grant 1 of p.toml: roles must be a list of texts"),
        ("[[grant]]\n" + RULE.replace('["team-a"]', "[1]"), "grant 1 of p.toml: tenants must be a list of texts"),
        ("[[grant]]\n" + RULE.replace("tenants", "envs"), "grant 1 of p.toml: has no tenants: add tenants = [...]"),
        ("[[grant]]\n" + RULE + "envs = []", "grant 1 of p.toml: envs must be a list of texts"),
        ("[[grant]]\n" + RULE + 'envs = ["a/b"]', "grant 1 of p.toml: envs: the env 'a/b' must be 1 to 63"),
        ("[[grant]]\n" + RULE.replace("team-a", ""), "grant 1 of p.toml: tenants: the tenant '' must be 1 to 63"),
        ("[[grant]]\n" + RULE.replace('["jwt:alice"]', "[]"), "grant 1 of p.toml: subjects must be a list of texts"),
        ("[[grant]]\n" + RULE.replace("jwt:", ""), "grant 1 of p.toml: subjects: 'alice' must begin with jwt:, key:"),
        ("[[grant]]\n" + RULE.replace("jwt:alice", "j*"), "grant 1 of p.toml: subjects: 'j*' must begin with"),
        ("[[grant]]\n" + RULE.replace("jwt:alice", "jwt:"), "grant 1 of p.toml: subjects: 'jwt:' must begin with"),
        ("[[grant]]\n" + RULE.replace("jwt:alice", "anonymous"), "'anonymous' must begin with"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_rule_and_key(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode(), "p.toml")
    assert problem in str(caught.value)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(b"[[grant]]\nsubjects = []\n[[grant]]\nroles = 1\n", "p.toml")
    assert len(str(caught.value).splitlines()) == 6


def test_bytes_that_are_no_text_are_named() -> None:
    with pytest.raises(PolicyError, match=r"p.toml is not UTF-8 at byte 2: save it as UTF-8"):
        parse_policy(b"# \xff", "p.toml")


def test_a_file_that_is_missing_too_large_or_no_file_is_named(tmp_path: Path) -> None:
    large, pipe = tmp_path / "large.toml", tmp_path / "pipe"
    large.write_bytes(b"#" * (LARGEST_BYTES + 1))
    os.mkfifo(pipe)
    for path, problem in (
        (tmp_path / "none.toml", "none.toml cannot be read: No such file"),
        (large, f"is larger than {LARGEST_BYTES} bytes"),
        (pipe, "is no file"),
        (tmp_path, "is no file"),
    ):
        with pytest.raises(PolicyError, match=problem):
            read_policy(path)


async def test_a_broken_file_leaves_the_last_good_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, heard = tmp_path / "policy.toml", list[bool]()
    path.write_text(GOOD)
    policy = Refreshed("the policy", lambda: load_policy(path), interval=1, on_result=heard.append)
    await policy.renew()
    good = policy.value

    path.write_text("[[grant]]\nroles = 1")
    with caplog.at_level(logging.ERROR):
        await policy.renew()
    assert policy.value is good
    assert "roles must be a list" in caplog.text
    assert "the last good ones stay in force" in caplog.text

    path.write_text("[[grant]]\n" + RULE)
    await policy.renew()
    assert len(policy.value.rules) == 1
    assert (policy.problem, heard, policy.version) == ("", [True, False, True], 2)


async def test_the_symbolic_links_of_a_config_map_are_followed_as_they_are_swapped(tmp_path: Path) -> None:
    # As the kubelet does: policy.toml → ..data/policy.toml, ..data → ..<time>, and only ..data is ever replaced.
    for name, text in (("..1", GOOD), ("..2", "[[grant]]\n" + RULE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.toml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.toml").symlink_to("..data/policy.toml")
    policy = Refreshed("the policy", lambda: load_policy(tmp_path / "policy.toml"), interval=1)
    await policy.renew()
    assert len(policy.value.rules) == 2

    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    await policy.renew()
    assert len(policy.value.rules) == 1


async def test_the_same_file_again_is_the_same_policy(tmp_path: Path) -> None:
    # Else every look would make the server forget what it decided.
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    policy = Refreshed("the policy", lambda: load_policy(path), interval=1)
    await policy.renew()
    first = policy.value
    await policy.renew()
    assert policy.value is first
