"""Bugs at the doors: which key lets in whom, what another site may do, and what is told outside."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_SMOKE = "tests/app/test_smoke.py::"
_HERALD = "tests/connectors/test_herald.py::"
_ALIASES = "tests/connectors/test_aliases.py::"
_OVERTAKEN = _ALIASES + "test_whoever_sleeps_dies_and_overtakes_whom_nothing_is_decided_that_nobody_decided"
_APP = "tests/app/serving/test_app.py::"
_DECISIONS = "tests/app/serving/test_decisions.py::"
_SAYS_NOTHING = _DECISIONS + "test_a_key_that_says_nothing_opens_nothing"

DOORS: Final[tuple[Mutant, ...]] = (
    *bugs(
        "secret",
        "priorflow/secret.py",
        (
            "a blank is a key",
            "bool(text.strip()) and text.isprintable()",
            "text.isprintable()",
            _SAYS_NOTHING,
        ),
        (
            "what nobody can see is a key",
            "bool(text.strip()) and text.isprintable()",
            "bool(text.strip())",
            _SAYS_NOTHING,
        ),
    ),
    *bugs(
        "who may decide",
        "priorflow/sections_serving.py",
        (
            "who may ask may decide",
            "self.decision_key, self.decision_key_file)",
            "self.decision_key, self.decision_key_file) or self.key()",
            _DECISIONS + "test_without_a_key_of_its_own_nobody_decides",
        ),
    ),
    *bugs(
        "smoke",
        "priorflow/smoke.py",
        (
            "Ctrl-C is held against a candidate",
            "            start_new_session=True,  # Ctrl-C is for the run to hear\n",
            "",
            _SMOKE + "test_what_is_pressed_in_the_run_s_terminal_does_not_reach_it",
        ),
        (
            "who was killed has failed",
            "if done.returncode < 0:",
            "if False:",
            _SMOKE + "test_who_was_ended_from_outside_is_waited_for",
        ),
    ),
    *bugs(
        "herald",
        "connectors/herald.py",
        (
            "who comes late moves the receiver back",
            "self._ledger.reached(_row(self._chain), TARGET, seq + 1)",
            "self._ledger.published(_row(self._chain), TARGET, str(seq + 1))",
            _HERALD + "test_of_two_who_tell_at_once_the_late_one_moves_nothing_back",
        ),
        (
            "what another told meanwhile is told again",
            "if worth_telling(log, seq) and begin(self._ledger, self._chain) <= seq:",
            "if worth_telling(log, seq):",
            _HERALD + "test_of_two_who_tell_at_once_the_late_one_moves_nothing_back",
        ),
    ),
    *bugs(
        "aliases",
        "connectors/aliases.py",
        (
            "what a settler wrote late is a person's decision",
            "if asking.stands and asking.version == found)",
            "if False)",
            _ALIASES + "test_a_settler_that_comes_late_decides_nothing",
        ),
        (
            "nobody says that he is about to move it",
            "ask(self.ledger, self.target, self.by, line, version)]",
            "Asking(line=line, name=self.by, version=version)]",
            _ALIASES + "test_a_settler_that_comes_late_decides_nothing",
        ),
        (
            "who moves while one looks is not seen",
            "        if before != list(askings(self.ledger, self.target, log)):\n",
            "        if False:\n",
            _ALIASES + "test_who_moves_late_while_another_looks_at_a_hand_s_work_is_not_taken_for_it",
        ),
        (
            "what was asked for is crossed out though the log has moved",
            "            over += self._point(log, newest or {})\n",
            "            [cross_out(self.ledger, self.target, a) for a in self._point(log, newest or {})]\n",
            _OVERTAKEN,
        ),
        (
            "what the living asked for is crossed out by others",
            "if asking.is_by(self.by) or asking.gone]",
            "]",
            _ALIASES + "test_a_settler_that_comes_late_decides_nothing",
        ),
        (
            "what the dead asked for stands for ever",
            "if asking.is_by(self.by) or asking.gone]",
            "if asking.is_by(self.by)]",
            _ALIASES + "test_a_dead_settler_s_late_move_is_put_back_once_and_then_a_hand_is_heard",
        ),
        (
            "a hand is not heard while nobody is in charge",
            "            return self._judged_first(str(version))\n",
            "            return None\n",
            _ALIASES + "test_an_alias_moved_by_hand_before_any_promotion_is_adopted",
        ),
        (
            "what does not verify keeps the name",
            '            self.registry.assert_aliases({"champion": None})\n',
            "            pass\n",
            _ALIASES + "test_one_that_does_not_verify_is_taken_away_while_nobody_is_in_charge",
        ),
        (
            "a new ledger takes another's alias away",
            "if self._reference(row.sha) == version), None)",
            "), None)",
            _ALIASES + "test_a_new_ledger_takes_nobody_s_alias_away",
        ),
    ),
    *bugs(
        "ledger",
        "connectors/ledger_writes.py",
        (
            "a place is compared letter by letter",
            "(cast(outbox.c.reference, Integer) < place)",
            "(outbox.c.reference < str(place))",
            "tests/connectors/test_ledger_laws.py::TestOutbox::test_how_far_somebody_is_never_moves_back[sqlite]",
        ),
    ),
    *bugs(
        "carrying out",
        "priorflow/carrying_out.py",
        (
            "who cannot be told makes the decision fail",
            "    except Exception as failed:",
            "    except ConnectionError as failed:",
            "tests/app/test_deciding.py::test_a_decision_stands_whoever_cannot_be_told",
        ),
    ),
    *bugs(
        "reasons",
        "priorflow/serving/decisions.py",
        (
            "a reason that reads another way than it is written",
            r"-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069",
            "",
            _DECISIONS + "test_what_does_not_fit_is_told_where",
        ),
    ),
    *bugs(
        "limits",
        "priorflow/serving/limits.py",
        (
            "who sends slowly is waited for",
            "asyncio.timeout(self._within_s)",
            "asyncio.timeout(None)",
            _APP + "test_a_body_that_does_not_come_is_given_up_and_the_connection_with_it",
        ),
        (
            "a connection is left with half a body to come",
            'response(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"})',
            "response(HTTPStatus.REQUEST_TIMEOUT, detail)",
            _APP + "test_a_body_that_does_not_come_is_given_up_and_the_connection_with_it",
        ),
        (
            "the time of a body is not part of the request's",
            "    return time.monotonic() - float(request.scope[_BEGUN])\n",
            "    return 0.0\n",
            _APP + "test_a_body_that_came_slowly_leaves_less_time_for_the_answer",
        ),
    ),
    *bugs(
        "pages",
        "priorflow/serving/app.py",
        (
            "a page that loads scripts of somebody else's",
            "        docs_url=None,  # these two pages load scripts of somebody else's\n",
            "",
            _DECISIONS + "test_all_html_is_ours_alone",
        ),
    ),
)
