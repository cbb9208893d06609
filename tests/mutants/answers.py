"""Bugs in what is answered: who says it, how sure, when it is withheld, and by which version."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_ANSWER = "tests/trainers/test_answer.py::"
_ABSTAIN = "tests/trainers/test_abstention.py::"
_DESK = "tests/app/serving/test_desk.py::"
_WATCHER = "tests/app/serving/test_watcher.py::"
_PUBLISHED = "tests/app/test_published.py::"
_SERVICE = "tests/app/serving/test_service.py::"

ANSWERS: Final[tuple[Mutant, ...]] = (
    *bugs(
        "answer",
        "trainers/answer.py",
        (
            "other draws than the forecasts'",
            "key(chain_seed, window), draws, pi_new",
            "key(chain_seed, window + 1), draws, pi_new",
            _ANSWER + "test_every_family_answers_what_it_foretells",
        ),
        (
            "a class nobody has seen is given nothing",
            "torch.tensor([1 - self._pi_new, self._pi_new]",
            "torch.tensor([1.0, 0.0]",
            _ANSWER + "test_every_family_answers_what_it_foretells",
        ),
        (
            "the panel has no say",
            "if self._panel is not None:",
            "if False and self._panel is not None:",
            _ANSWER + "test_a_panel_answers_what_it_foretells",
        ),
        (
            "all doubt is called ignorance",
            "epistemic=total - aleatoric",
            "epistemic=total",
            _ANSWER + "test_an_answer_adds_up",
        ),
        (
            "one draw speaks for all",
            "torch.cat([one[name] for one in each])",
            "torch.cat([each[0][name] for one in each])",
            _ANSWER + "test_every_family_answers_what_it_foretells",
        ),
    ),
    *bugs(
        "dispute",
        "posterior/panel.py",
        (
            "what a new class takes is not taken from the known ones",
            "old = (of_new * new[..., 0].exp()).sum(dim=0)",
            "old = torch.ones_like(new[0, :, 0])",
            _ANSWER + "test_experts_one_by_one_are_surer_than_together",
        ),
    ),
    *bugs(
        "abstention",
        "trainers/abstention.py",
        (
            "a threshold passes by its share of errors alone",
            "if at_most(errors, n, risk) > alpha:",
            "if errors / n > risk:",
            _ABSTAIN + "test_the_risk_is_kept_as_often_as_stated",
        ),
        (
            "a failed threshold is passed over",
            "            break\n",
            "            continue\n",
            _ABSTAIN + "test_sure_and_wrong_answers_nothing",
        ),
        (
            "right answers count as errors",
            "wrongs[step] += seen - right",
            "wrongs[step] += right",
            _ABSTAIN + "test_much_evidence_comes_near_the_best_threshold",
        ),
        (
            "the last window stands for all",
            "counts[step] += seen\n        wrongs",
            "counts[step] = seen\n        wrongs",
            _ABSTAIN + "test_more_risk_answers_no_less_and_windows_add_up",
        ),
        (
            "one error less than there was",
            "for k in range(errors + 1)",
            "for k in range(errors)",
            _ABSTAIN + "test_the_chance_of_so_few_errors",
        ),
        (
            "what could not pass ends the search",
            "        if n < least:\n            continue\n",
            "",
            _ABSTAIN + "test_the_risk_is_kept_as_often_as_stated",
        ),
        (
            "a confidence is rounded up",
            "math.floor(confidence * STEPS + 1e-6)",
            "round(confidence * STEPS)",
            _ABSTAIN + "test_a_confidence_of_the_threshold_is_answered",
        ),
    ),
    *bugs(
        "desk",
        "priorflow/serving/desk.py",
        (
            "a new version stands behind the whole line",
            "            if self._offers:\n",
            "            if self._offers and not self._requests:\n",
            _DESK + "test_a_version_takes_over_between_requests_and_never_within_one",
        ),
        (
            "who cannot answer takes over",
            "            taken.set_exception(failed)\n            return\n",
            "            taken.set_exception(failed)\n",
            _DESK + "test_who_cannot_answer_does_not_take_over",
        ),
        (
            "texts answered still count as waiting",
            "            self._waiting -= len(request.texts)\n",
            "            pass\n",
            _DESK + "test_too_long_a_line_is_refused_and_clears",
        ),
        (
            "first come, first answered, however much was asked",
            "time.perf_counter() + len(request.left) * self._text_s",
            "time.perf_counter()",
            _DESK + "test_a_request_of_many_texts_holds_up_neither_others_nor_a_change",
        ),
        (
            "a request goes on with whoever is in charge",
            "request.version = request.version or self._version",
            "request.version = self._version",
            _DESK + "test_a_request_of_many_texts_holds_up_neither_others_nor_a_change",
        ),
    ),
    *bugs(
        "watcher",
        "priorflow/serving/watcher.py",
        (
            "bytes are believed unseen",
            "            _verified(wanted, posterior)\n",
            "",
            _WATCHER + "test_bytes_that_are_not_the_posterior_do_not_answer",
        ),
        (
            "who cannot be told ends the looking",
            "with suppress(Exception):  #",
            "if True:  #",
            _WATCHER + "test_it_goes_on_looking_though_nobody_can_be_told",
        ),
        (
            "what is kept wins over the log",
            "if found is None and self._desk.version is None:",
            "if self._desk.version is None:",
            _WATCHER + "test_the_log_is_followed_and_looked_at_again_costs_nothing",
        ),
        (
            "an alias is believed more than what the log said last",
            "found = None if self._logged is None else replace(self._logged, history=None)",
            "found = None",
            _WATCHER + "test_an_alias_that_lags_behind_a_log_that_was_read_is_not_followed_while_it_is_away",
        ),
        (
            "what the log does not say any more is still believed",
            "found = self._logged = self._places.by_decision()",
            "found = self._logged = self._places.by_decision() or self._logged",
            _WATCHER + "test_an_alias_that_lags_behind_a_log_that_was_read_is_not_followed_while_it_is_away",
        ),
        (
            "a threshold that could not be chosen never is",
            "wanted.history is not None and not present.settled",
            "False",
            _WATCHER + "test_a_threshold_that_could_not_be_chosen_is_once_the_ledger_is_back",
        ),
    ),
    *bugs(
        "published",
        "priorflow/flavour.py",
        (
            "a version answers by the draws it was learned with, whatever serve.draws says",
            'draws=chain.settings["learn"]["draws"] if rules.draws is None else rules.draws,',
            'draws=chain.settings["learn"]["draws"],',
            _PUBLISHED + "test_the_same_snapshot_gives_the_same_files",
        ),
        (
            "rows in which nothing was learned count as looked at",
            "    while row is not None:\n",
            "    for _ in range(100):\n        if row is None:\n            return\n",
            _PUBLISHED + "test_it_withholds_by_the_windows_that_a_server_goes_by_however_far_back_they_lie",
        ),
    ),
    *bugs(
        "published",
        "priorflow/published.py",
        (
            "the draws that a version names are not used",
            "draws=answering.draws,",
            'draws=settings["learn"]["draws"],',
            "tests/app/test_pyfunc.py::test_it_answers_and_withholds_as_the_server_does",
        ),
    ),
    *bugs(
        "following",
        "priorflow/serving/following.py",
        (
            "a threshold that was kept is not used for an alias",
            "            rule = self._kept_rule(snapshot, rule)\n",
            "            pass\n",
            _SERVICE
            + "test_an_alias_in_an_outage_answers_by_the_threshold_that_was_kept_and_takes_none_away",
        ),
        (
            "a threshold of another snapshot is used",
            " or kept.snapshot.sha != snapshot.sha:",
            ":",
            _SERVICE
            + "test_an_alias_in_an_outage_answers_by_the_threshold_that_was_kept_and_takes_none_away",
        ),
        (
            "who has no threshold takes the one that was kept",
            " and not self._worth_more(version)",
            "",
            _SERVICE
            + "test_an_alias_in_an_outage_answers_by_the_threshold_that_was_kept_and_takes_none_away",
        ),
    ),
)
