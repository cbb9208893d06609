"""Bugs in what promotes and takes back: evidence, gates, the log, a person's word, the lease on a chain."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_GATES = "tests/trainers/test_gates.py::"
_GUARDS = "tests/trainers/test_guards.py::"
_WAGER = "tests/trainers/test_wager.py::"
_PROMOTION = "tests/app/test_promotion.py::"
_DECIDING = "tests/app/test_deciding.py::"
_TENURE = "tests/app/test_tenure.py::"
_RELEARNING = "tests/trainers/test_relearning.py::"
_EVERY_GATE = _GATES + "test_good_evidence_passes_every_gate"
_WATCHED_BOUNDS = _GATES + "test_better_goes_by_the_bounds_that_may_be_watched"
_NO_WORSE = _PROMOTION + "test_a_champion_no_worse_than_the_one_before_it_stays"
_GOES = _PROMOTION + "test_a_champion_that_does_worse_than_the_one_before_it_goes_by_itself"
_NEITHER = _PROMOTION + "test_dying_between_commit_and_decision_neither_loses_nor_doubles_evidence"
_WITHOUT_FORCE = _DECIDING + "test_without_force_the_gates_decide"
_CALIBRATION = _GUARDS + "test_calibration_far_out_fails_a_little_out_waits_and_within_passes"
_SIGNALS = _TENURE + "test_the_first_signal_stops_the_second_interrupts_and_afterwards_all_is_as_before"

_COMPARED = bugs(
    "gates",
    "trainers/gates.py",
    (
        "recall is not asked for",
        "        recall(bounds, evidence.classes),\n",
        "",
        _EVERY_GATE,
    ),
    (
        "smoke is asked for and not waited for",
        "    if bounds.smoke or (evidence",
        "    if (bounds.smoke and evidence.smoke is not None) or (evidence",
        _GATES + "test_what_nobody_asks_for_is_not_waited_for",
    ),
    (
        "one label is enough where it is clear",
        "if wager.events < bounds.min_labels:",
        "if wager.events < 1:",
        _GATES + "test_better_waits_for_the_least_number_of_labels_however_clear_it_is",
    ),
    (
        "better at all is as good as better by so much",
        "if better_by(wager, bounds.min_gain) >= need:",
        "if better_by(wager, 0.0) >= need:",
        _GATES + "test_better_at_all_is_not_yet_better_by_so_much",
    ),
    (
        "who is not better by so much has to be worse to fail",
        "if worse_by(wager, -bounds.min_gain) >= need:",
        "if worse_by(wager, 0.0) >= need:",
        _WATCHED_BOUNDS,
    ),
    (
        "what was won long ago covers what was lost since",
        "if (lately := worse_lately(wager)) >= -math.log(bounds.rollback_alpha):",
        "if (lately := worse_by(wager)) >= -math.log(bounds.rollback_alpha):",
        _GATES + "test_a_policy_that_turned_of_late_is_not_promoted_for_what_it_won_long_ago",
    ),
    (
        "a comparison with another champion counts",
        "(wager.incumbent, wager.clip) != (evidence.champion, bounds.clip)",
        "wager.clip != bounds.clip",
        _GATES + "test_a_comparison_with_another_champion_or_clip_is_none",
    ),
    (
        "a champion's good years keep it in charge",
        'if numbers["log_e_worse"] >= need:',
        "if worse_by(wager) >= need:",
        _GATES + "test_a_live_champion_that_turns_bad_is_rolled_back_though_it_was_good_for_long",
    ),
)

_BETS = bugs(
    "wager",
    "trainers/wager.py",
    (
        "what the younger one foretold itself counts",
        "if told.arrived < wager.since:",
        "if told.arrived < wager.since - 1:",
        _WAGER.removesuffix("::"),
    ),
    (
        "an event counts twice",
        "(told.window, told.place) <= wager.mark",
        "(told.window, told.place) < wager.mark",
        _WAGER.removesuffix("::"),
    ),
    (
        "a bet is never begun anew",
        "tuple(_log_add(w, -math.log((n + 1) * (n + 2))) for w in _bet(wager.lately, -x))",
        "_bet(wager.lately, -x)",
        _WAGER.removesuffix("::"),
    ),
    (
        "the best bet is taken afterwards",
        "return top + math.log(math.fsum(math.exp(w - top) for w in logs) / len(logs))",
        "return top",
        _WAGER.removesuffix("::"),
    ),
)

_SOUND = bugs(
    "guards",
    "trainers/guards.py",
    (
        "noise is taken for a lack of calibration",
        "chance = lifted + math.sqrt(",
        "chance = math.sqrt(",
        _GUARDS + "test_chance_alone_rarely_fails_calibration",
    ),
    (
        "a fail does not have to be beyond chance",
        "if ece - chance <= bounds.max_ece:",
        "if ece - chance <= 0:",
        _CALIBRATION,
    ),
    ("few labels show calibration", "if n < bounds.min_labels:", "if n < 1:", _CALIBRATION),
    (
        "every class has the level to itself",
        "share = bounds.guard_alpha / len(judged)",
        "share = bounds.guard_alpha",
        _GUARDS + "test_classes_share_the_level",
    ),
    (
        "what is found counts as lost",
        "hits = p * math.log(p / q) if p else 0.0",
        "hits = 0.0",
        _GUARDS + "test_a_class_at_the_floor_fails_no_more_often_than_stated",
    ),
    (
        "a class well above the floor is lost beyond chance",
        "return seen < floor and one.labels",
        "return one.labels",
        _GUARDS + "test_recall_names_the_worst_the_few_and_the_rare",
    ),
    (
        "one odd label is waited for",
        "_share(c, whole) < bounds.rare",
        "_share(c, whole) < 0",
        _GUARDS + "test_recall_names_the_worst_the_few_and_the_rare",
    ),
    (
        "a belief may jump",
        "if kl_per_example <= bounds.max_kl_per_example:",
        "if kl_per_example >= 0:",
        _GUARDS + "test_the_other_guards_hold_to_their_bounds",
    ),
    (
        "another version's load will do",
        "if seen is None or seen.snapshot != candidate:",
        "if seen is None:",
        _GUARDS + "test_a_load_of_another_version_is_no_evidence",
    ),
)

_JUDGED = bugs(
    "promotion",
    "priorflow/promotion.py",
    ("a window is heard twice", "if heard(log) >= child.index:", "if heard(log) > child.index:", _NEITHER),
    (
        "who learned a window is judged by it",
        "        row = child\n",
        '        row = child\n        if child.kind == "learned":\n            return child\n',
        _PROMOTION + "test_the_first_sound_candidate_becomes_champion",
    ),
    (
        "what a derived chain began with is judged",
        "of = row.report.get(OF)",
        "of = row.report.get(OF, row.sha)",
        _PROMOTION + "test_what_a_derived_chain_began_with_is_no_candidate",
    ),
    (
        "policy and champion change places",
        "pairs = self._pairs(window, events, [own for _, _, own in asked], rival)",
        "pairs = self._pairs(window, events, rival, [own for _, _, own in asked])",
        _PROMOTION + "test_a_worse_policy_is_refused_and_the_champion_stays",
    ),
    (
        "guards hear what came before the champion",
        "if m.forecast and m.arrived >= case.since\n",
        "if m.forecast\n",
        _PROMOTION + "test_guards_hear_of_nothing_that_came_before_the_champion",
    ),
    (
        "the champion is asked about everything",
        "asked = spread(posed, max(MOST_EVENTS, self.bounds.min_labels))",
        "asked = posed",
        _PROMOTION + "test_the_champion_is_asked_about_a_sample",
    ),
    (
        "the shadow is the champion's own",
        "shadow = self._pairs(window, events, rival, self._asked(before, events))",
        "shadow = self._pairs(window, events, rival, rival)",
        _GOES,
    ),
    ("nobody goes", 'if kept.verdict == "fail":', "if False:", _GOES),
    (
        "whoever was put back is promoted",
        'action="rollback" if _falls(found) else _ACTIONS[gates.verdict(found)],',
        "action=_ACTIONS[gates.verdict(found)],",
        _GOES,
    ),
    (
        "a switch that does nothing",
        "decision_log.fallback(log) if self.rolls_back else None",
        "decision_log.fallback(log)",
        _PROMOTION + "test_nobody_is_rolled_back_where_that_is_switched_off",
    ),
    (
        "decided without looking who decided meanwhile",
        "            after=decision_log.last_hash(log),\n",
        "",
        _PROMOTION + "test_of_a_zombie_and_its_successor_one_is_heard",
    ),
    (
        "the champion's own belief is promoted again",
        "if champion is not None and candidate.posterior == champion.posterior:",
        "if False:",
        _PROMOTION + "test_only_the_policy_s_own_belief_can_be_promoted",
    ),
    (
        "the window that made the champion speaks against it",
        "return next(heard_of, 0) + 1",
        "return next(heard_of, 0)",
        _PROMOTION + "test_guards_hear_of_nothing_that_came_before_the_champion",
    ),
    (
        "what a champion has learned is news to it when it is read again",
        "return one.sha in {row.sha, row.report.get(REWOUND)} or not beyond(row, one)",
        "return one.sha in {row.sha, row.report.get(REWOUND)}",
        _PROMOTION + "test_what_a_champion_has_learned_says_nothing_of_it_when_it_is_read_again",
    ),
    (
        "what was counted before going back counts again",
        "turned=self._turned(child, heard(log)),",
        "turned=False,",
        _PROMOTION + "test_what_was_counted_before_learning_went_back_is_not_counted_again",
    ),
    (
        "windows passed over are not named",
        'more |= {"unheard": unheard} if unheard else {}',
        "more |= {}",
        _PROMOTION + "test_windows_that_cannot_be_had_again_are_named",
    ),
) + bugs(
    "case",
    "priorflow/case.py",
    (
        "evidence outlives a rollback",
        "        if line.action in IN_CHARGE:\n            return None\n",
        "",
        _PROMOTION + "test_after_a_rollback_the_comparison_begins_anew",
    ),
    (
        "another clip is the same game",
        "(left.challenger, left.incumbent, left.clip) == (challenger, incumbent.sha, clip)",
        "(left.challenger, left.incumbent) == (challenger, incumbent.sha)",
        _PROMOTION + "test_another_clip_or_unreadable_evidence_opens_a_new_wager_and_says_so",
    ),
    (
        "a predecessor's shadow never bets",
        "tenure = wagers.count_all(tenure, shadow)",
        "tenure = wagers.count_all(tenure, ())",
        _NO_WORSE,
    ),
)

_BY_HAND = bugs(
    "deciding",
    "priorflow/deciding.py",
    ("force needs no reason", "if force and not reason:", "if False:", _WITHOUT_FORCE),
    (
        "only a fail stands in the way",
        'if found.evidence["verdict"] != "pass":',
        'if found.evidence["verdict"] == "fail":',
        _DECIDING + "test_what_is_not_decided_yet_is_not_allowed_either",
    ),
    (
        "passed against whomever",
        'if found.evidence["champion"] != champion(log):',
        "if False:",
        _DECIDING + "test_what_the_gates_passed_may_come_back_after_a_rollback_but_not_against_another",
    ),
    (
        "a rollback to anybody",
        "if wanted.sha not in {line.snapshot for line in log if line.action in IN_CHARGE}:",
        "if wanted.sha not in {line.snapshot for line in log}:",
        _DECIDING + "test_a_rollback_goes_to_who_was_champion_and_to_nobody_else",
    ),
    (
        "what cannot be gone back to cannot be taken back",
        " and asked_for(log, self.ledger.history(self.chain)) is None",
        "",
        _DECIDING + "test_what_learning_was_to_go_on_from_can_be_taken_back_until_it_does",
    ),
    (
        "another chain's belief",
        'if snapshot.chain != self.chain or snapshot.kind != "learned":',
        'if snapshot.kind != "learned":',
        _DECIDING + "test_only_a_belief_of_this_chain_that_verifies",
    ),
    (
        "bytes are believed unseen",
        "        self.blobs.get(snapshot.posterior)\n",
        "",
        _DECIDING + "test_only_a_belief_of_this_chain_that_verifies",
    ),
    (
        "the second of two promoters is heard",
        "            after=last_hash(log),\n",
        "",
        _DECIDING + "test_of_two_promoters_at_once_one_is_told_who_was_first",
    ),
)

_BACK = bugs(
    "branching",
    "trainers/branching.py",
    (
        "an abandoned champion is gone on from at the head's positions",
        "line.evidence[CONTINUE] == RELEARN or line.snapshot not in standing",
        "line.evidence[CONTINUE] == RELEARN",
        _RELEARNING + "test_going_on_from_a_champion_that_was_gone_back_over_learns_no_label_twice",
    ),
    (
        "going back takes new names back",
        "            content = renamed(content, old, new)\n",
        "            pass\n",
        _RELEARNING + "test_a_class_that_was_renamed_keeps_its_new_name_when_learning_goes_back_past_that",
    ),
    (
        "going back remembers what was erased",
        "at_index(state_behind(blobs, erasures, champion), head.index)",
        "at_index(blobs.get(champion.stream_state), head.index)",
        "tests/trainers/test_erasing.py::test_learning_goes_back_over_an_erasure_and_does_not_remember_it",
    ),
)

_HELD = bugs(
    "tenure",
    "priorflow/tenure.py",
    (
        "a lease is renewed too late",
        "while not done.wait(ttl_s / 3):",
        "while not done.wait(ttl_s * 3):",
        _TENURE + "test_a_lease_outlives_its_length_while_it_is_held",
    ),
    (
        "a chain is kept after the run",
        "        ledger.release(fence)\n",
        "",
        _TENURE + "test_it_is_let_go_of_whatever_happens",
    ),
    (
        "a lost chain is not told of",
        "                lost.set()\n",
        "",
        _TENURE + "test_who_was_taken_over_hears_of_it_and_leaves_the_successor_alone",
    ),
    (
        "an outage ends it",
        "                continue  #",
        "                return  #",
        _TENURE + "test_an_outage_ends_no_tenure",
    ),
    (
        "every run takes over",
        "ttl_s=ttl_s, takeover=takeover)",
        "ttl_s=ttl_s, takeover=True)",
        _TENURE + "test_a_live_owner_is_moved_by_a_takeover_only",
    ),
    ("a second signal waits too", "        if stop.is_set():\n", "        if False:\n", _SIGNALS),
    (
        "signals stay ours for good",
        "            signal.signal(number, handler)\n",
        "            pass\n",
        _SIGNALS,
    ),
)

GATES: Final[tuple[Mutant, ...]] = (*_COMPARED, *_BETS, *_SOUND, *_JUDGED, *_BY_HAND, *_BACK, *_HELD)
