"""Bugs at the doors: which key lets in whom, what another site may do, and what is told outside."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_SMOKE = "tests/app/test_smoke.py::"
_HERALD = "tests/connectors/test_herald.py::"
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
