from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from connectors.codec import decoder
from priorflow.config import ConfigError, Settings, describe, load
from priorflow.masking import without_password, without_passwords
from priorflow.quantities import (
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)
from priorflow.rules import codec_rules, intake_rules
from priorflow.secret import NoSecret
from stream.record import Event, Label, Position, RawRecord

SECRET = "hunter2-correct-horse"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no priorflow.yaml of the developer's


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "flow.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None, **overrides: object) -> str:
    with pytest.raises(ConfigError) as refused:
        load(path, overrides={k.replace("__", "."): v for k, v in overrides.items()})
    return str(refused.value)


def leaves(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    yield from (name for name, _ in describe(section, prefix))


def test_defaults_need_no_file() -> None:
    settings = load()
    assert settings.embedded
    assert settings.archive_path is None
    assert settings.ledger_url.startswith("sqlite:////")


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    settings = load(overrides={"window.kind": "time", "window.size": "12h", "learn.beta": 0.9})
    again = load(written(tmp_path, yaml.safe_dump(settings.shown())))
    assert again == settings


def test_environment_wins_over_file_and_set_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "learn: {epochs: 2, batch: 4}\nkafka: {bootstrap: 'a:1'}\n")
    monkeypatch.setenv("PRIORFLOW_LEARN__EPOCHS", "5")
    monkeypatch.setenv("PRIORFLOW_KAFKA__BOOTSTRAP", "b:2")
    settings = load(path, overrides={"kafka.bootstrap": "c:3"})
    assert (settings.learn.epochs, settings.learn.batch) == (5, 4)
    assert settings.kafka.bootstrap == "c:3"


def test_home_and_config_file_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIORFLOW_CONFIG", str(written(tmp_path, "chain: {name: mails}\n")))
    monkeypatch.setenv("PRIORFLOW_HOME", str(tmp_path / "state"))
    settings = load()
    assert settings.chain.name == "mails"
    assert settings.blobs_url == str(tmp_path / "state" / "blobs")


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORFLOW_RECORDS__LABEL_VOCABULARY", '["spam", "fork"]')
    assert load().records.label_vocabulary == ("spam", "fork")
    monkeypatch.setenv("PRIORFLOW_RECORDS__LABEL_VOCABULARY", "spam,fork")
    assert "label_vocabulary" in refusal(None)


def test_an_empty_section_says_nothing(tmp_path: Path) -> None:
    assert load(written(tmp_path, "kafka:\n# bootstrap: x\nlearn: {epochs: 2}\n")).learn.epochs == 2


@pytest.mark.parametrize("name", list(leaves()))
def test_every_misspelt_name_is_refused_with_the_right_one(tmp_path: Path, name: str) -> None:
    *sections, leaf = name.split(".")
    wrong = f"{leaf}x"
    document: dict[str, object] = {wrong: 1}
    for section in reversed(sections):
        document = {section: document}
    if sections[:1] == ["family"]:
        return  # families name their own options; see test_learning
    said = refusal(written(tmp_path, yaml.safe_dump(document)))
    assert f"{'.'.join((*sections, wrong))}: unknown key; did you mean {leaf!r}?" in said


def test_a_name_of_another_section_is_pointed_at(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, "kafka:\n  batch: 3\n"))
    assert said.endswith("flow.yaml:2: kafka.batch: unknown key; did you mean 'learn.batch'?")


def test_every_problem_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "window:\n  size: 3\n  kind: time\nrecords:\n  late: drop\n")
    monkeypatch.setenv("PRIORFLOW_LEARN__LR", "-1")
    lines = refusal(path, model__rank=0).splitlines()
    assert len(lines) == 4
    assert any("flow.yaml:2: window.size: '3' is not a duration" in line for line in lines)
    assert any("flow.yaml:5: records.late: should be 'accept' or 'divert'" in line for line in lines)
    assert any(line.startswith("environment PRIORFLOW_LEARN__LR: learn.lr:") for line in lines)
    assert any(line.startswith("--set model.rank:") for line in lines)


def test_a_section_misspelt_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORFLOW_KAFAK__BOOTSTRAP", "a:1")
    assert "did you mean PRIORFLOW_KAFKA__BOOTSTRAP?" in refusal(None)


def test_what_orchestrators_set_for_a_service_of_our_name_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRIORFLOW_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("PRIORFLOW_SERVICE_HOST", "10.0.0.1")
    assert load().chain.name == "main"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learn: {epochs: 1, epochs: 2}", "learn.epochs was already set on line 1"),
        ("- kafka", "must be a mapping"),
        ("kafka: {", "not YAML"),
        ("yes: 1", "put it in quotes"),
        ("kafka: 3", "kafka:"),
        ("records: {label_vocabulary: [yes, no]}", "records.label_vocabulary.0"),
    ],
)
def test_files_that_mean_something_else_are_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refusal(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"kafka.topics.late": "priorflow.events"}, "name another topic"),
        ({"kafka.topics.late": "priorflow.dead-letters"}, "name four"),
        ({"kafka.topics.shadow": "priorflow.answers"}, "name four"),
        ({"serve.shadow": "champion"}, "serve.shadow"),
        ({"serve.shadow": 0}, "serve.shadow"),
        ({"kafka.security_protocol": "SASL_SSL"}, "also needs sasl_mechanism"),
        ({"kafka.sasl_username": "me"}, "set security_protocol"),
        ({"kafka.bootstrap": "broker"}, "host:port"),
        ({"source": "files"}, "archive:FOLDER"),
        ({"learn.workers": 2, "learn.world": 3}, "leave world out"),
        ({"window.size": "7d"}, "kind: time"),
        ({"window.size": 0}, "at least one example"),
        ({"records.clock.not_before": "2200-01-01"}, "not_before must lie before not_after"),
        ({"records.mapping.text": "body"}, "JSON pointer"),
        ({"records.label_vocabulary": ["a", "a"]}, "each once"),
        ({"model.sites": "("}, "not a regular expression"),
        ({"chain.seed": 2**31}, "chain.seed"),
        ({"learn.beta": 1.5}, "learn.beta"),
        ({"ledger.url": "sqlite:///a", "ledger.url_file": "b"}, "keep one"),
        ({"ledger.url": "mysql://me:secret@db/flow"}, "sqlite:///FILE or postgresql://"),
    ],
)
def test_what_cannot_work_is_refused_at_the_door(overrides: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        load(overrides=overrides)


def test_one_topic_may_hold_events_and_labels() -> None:
    topics = {"kafka.topics.events": "mails", "kafka.topics.labels": "mails"}
    assert load(overrides=topics).kafka.topics.events == "mails"


@given(st.integers(min_value=0, max_value=10**12))
def test_durations_are_read_as_they_are_written(millis: int) -> None:
    assert parse_duration(format_duration(millis)) == millis


@pytest.mark.parametrize(
    ("text", "millis"), [("7d", 604_800_000), ("1h30m", 5_400_000), ("0.5s", 500), ("250 ms", 250)]
)
def test_durations_of_operators(text: str, millis: int) -> None:
    assert parse_duration(text) == millis


@pytest.mark.parametrize("text", ["7", 90, "", "-1s", "7 days", "s", True, None, "1.5"])
def test_durations_without_a_unit_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="250ms, 90s, 12h or 7d"):
        parse_duration(text)


@given(st.integers(min_value=-(10**13), max_value=10**14))
def test_instants_are_read_as_they_are_written(millis: int) -> None:
    assert parse_instant(format_instant(millis)) == millis


def test_instants_are_utc_unless_they_say_otherwise() -> None:
    assert parse_instant("2001-01-01") == parse_instant("2001-01-01T02:00:00+02:00")


def secretive(tmp_path: Path) -> Settings:
    return load(
        written(
            tmp_path,
            f"""
            kafka: {{bootstrap: 'h:1', security_protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-256,
                     sasl_username: me, sasl_password: {SECRET}}}
            ledger: {{url: 'postgresql://me:{SECRET}@db/flow'}}
            mlflow: {{tracking_uri: 'https://me:{SECRET}@registry/'}}
            """,
        )
    )


def test_secrets_are_held_but_never_printed(tmp_path: Path) -> None:
    settings = secretive(tmp_path)
    assert settings.kafka.password() == SECRET
    assert SECRET in settings.ledger_url
    assert SECRET in settings.tracking_uri
    shown = json.dumps(settings.shown())
    for printed in (shown, repr(settings), str(settings), settings.model_dump_json()):
        assert SECRET not in printed
    assert "postgresql://me:***@db/flow" in shown


def test_a_refused_secret_is_not_repeated_even_in_a_traceback(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"kafka: {{sasl_pasword: {SECRET}, sasl_password: [{SECRET}]}}\n"
        f"ledger: {{url: [{SECRET}]}}\nchain: {{name: '{SECRET}!'}}\n",
    )
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    settings = load(
        overrides={
            "kafka.bootstrap": "h:1",
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_mechanism": "PLAIN",
            "kafka.sasl_username": "me",
            "kafka.sasl_password_file": str(tmp_path / "password"),
        }
    )
    assert settings.kafka.password() == SECRET


_SECRETS = ("serve.api_key", "serve.decision_key", "decisions.webhook_secret", "kafka.sasl_password")
_SASL = {
    "kafka.security_protocol": "SASL_SSL",
    "kafka.sasl_mechanism": "PLAIN",
    "kafka.sasl_username": "me",
}
_NOTHING = ("", "  ", "\n", "k3y\nk3y", "k3\x00y", "k3\u202ey")


def held_in(settings: Settings) -> dict[str, Callable[[], str | None]]:
    serve, kafka = settings.serve, settings.kafka
    ways = (serve.key, serve.key_to_decide, settings.decisions.secret, kafka.password)
    return dict(zip(_SECRETS, ways, strict=True))


@pytest.mark.parametrize("name", _SECRETS)
def test_a_secret_that_says_nothing_is_refused_wherever_it_is_kept(tmp_path: Path, name: str) -> None:
    more = _SASL if name.startswith("kafka") else {}
    file = tmp_path / "secret"
    filed = load(overrides={**more, f"{name}_file": str(file)})
    for said in (*_NOTHING, None):
        if said is not None:
            with pytest.raises(ConfigError, match=rf"{name}: must be a line"):
                load(overrides={**more, name: said})
            file.write_text(said, encoding="utf-8")
        with pytest.raises(NoSecret, match=f"{name}_file: ") as refused:
            held_in(filed)[name]()
        assert str(file) in str(refused.value)
        assert "k3" not in str(refused.value)
        file.unlink(missing_ok=True)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(NoSecret, match=f"{name}_file: "):
        held_in(filed)[name]()
    file.write_text("k3y\r\n", encoding="utf-8")
    assert held_in(filed)[name]() == held_in(load(overrides={**more, name: "k3y"}))[name]() == "k3y"


@pytest.mark.parametrize("name", [f"{name}{ending}" for name in _SECRETS for ending in ("", "_file")])
def test_an_empty_variable_is_no_secret_left_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable = "PRIORFLOW_" + name.upper().replace(".", "__")
    monkeypatch.setenv(variable, "")
    assert f"environment {variable}: is empty" in refusal(None)
    monkeypatch.delenv(variable)
    monkeypatch.setenv("PRIORFLOW_CHAIN__NAME", "")
    assert load().chain.name == "main"


def test_clients_that_quote_an_address_do_not_give_its_password_away() -> None:
    said = f"GET http://me:{SECRET}@registry/x failed (postgresql://me:{SECRET}@db/flow)"
    masked = "GET http://me:***@registry/x failed (postgresql://me:***@db/flow)"
    assert without_passwords(said) == masked


def test_addresses_without_a_password_are_shown_whole() -> None:
    assert without_password("postgresql://me@db:5432/flow") == "postgresql://me@db:5432/flow"


def test_the_stream_is_told_what_was_set() -> None:
    rules = intake_rules(
        load(
            overrides={
                "records.out_of_order": "2s",
                "records.clock.max_ahead": None,
                "records.label_horizon": "3s",
                "records.label_vocabulary": ["spam"],
                "records.late": "divert",
                "records.breaker.run": 7,
                "window.kind": "time",
                "window.size": "4s",
            }
        )
    )
    assert (rules.clock.out_of_order_ms, rules.clock.max_ahead_ms) == (2_000, None)
    assert (rules.horizons.label_ms, rules.horizons.capacity) == (3_000, 100_000)
    assert (rules.label_vocabulary, rules.late) == (frozenset({"spam"}), "divert")
    assert (rules.breaker.run, rules.window.kind, rules.window.size) == (7, "time", 4_000)


def page_example(tmp_path: Path) -> Settings:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    return load(written(tmp_path, example))


def test_the_example_of_the_page_reads_the_records_it_speaks_of(tmp_path: Path) -> None:
    settings = page_example(tmp_path)
    decode = decoder(codec_rules(settings))
    ticket = {"ticket": {"id": "t1", "body": "no light", "created_ms": 978_307_200_000}}
    solved = {"ticket_id": "t1", "queue": "outage", "closed_ms": 978_307_260_000}
    bodies = [
        decode(RawRecord(Position(topic, 0, 0), 0, None, json.dumps(value).encode())).body
        for topic, value in (("support.tickets", ticket), ("support.resolutions", solved))
    ]
    assert bodies == [
        Event(event_id="t1", text="no light", time_ms=978_307_200_000),
        Label(event_id="t1", label="outage", time_ms=978_307_260_000),
    ]
    assert settings.window.size == 86_400_000


def test_every_setting_is_explained() -> None:
    unexplained = [name for name, meaning in describe() if not meaning.endswith(".")]
    assert unexplained == []
