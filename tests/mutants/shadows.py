"""Bugs around answers: the shadow beside them, texts the model fails at, and who may write a ledger."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_BATCHES = "tests/app/test_batches.py::"
_COMPARING = "tests/app/serving/test_comparing.py::"
_SHADOW = "tests/app/serving/test_shadow.py::"
_SCORER = "tests/app/test_scorer.py"
_CHAMPIONS = "tests/app/serving/test_champions.py::"
_SCHEMA = "tests/connectors/test_ledger_schema.py::"

SHADOWS: Final[tuple[Mutant, ...]] = (
    *bugs(
        "comparing",
        "priorflow/serving/comparing.py",
        (
            "classes that one of the two does not know are left out",
            "dict(shared(p, q)), dict(shared(q, p))",
            "p, {label: q.get(label, q['']) for label in p}",
            _COMPARING + "test_kl_is_what_is_written",
        ),
        (
            "KL the other way round",
            "given * (math.log(max(given, FLOOR)) - math.log(max(q[label], FLOOR))) for label, given in p",
            "q[label] * (math.log(max(q[label], FLOOR)) - math.log(max(given, FLOOR))) for label, given in p",
            _COMPARING + "test_kl_is_what_is_written",
        ),
        (
            "another pair goes on with the sums of the last",
            "before = sums if (sums.champion, sums.shadow) == pair else",
            "before = sums if sums.events else",
            _COMPARING + "test_sums_are_of_one_pair",
        ),
        (
            "a share is chosen by chance of the process",
            "hashlib.sha256(event_id.encode()).digest()[:8]",
            "hashlib.sha256(repr((event_id, share)).encode()).digest()[:8]",
            _COMPARING + "test_who_is_chosen_for_a_share_is_chosen_for_any_larger",
        ),
    ),
    *bugs(
        "shadow",
        "priorflow/serving/shadow.py",
        (
            "who answers hears for the shadow",
            "self._desk.ask([asked], heard=partial(",
            "self._desk.ask([asked]).add_done_callback(partial(",
            _SHADOW + "test_who_answers_never_hears_for_the_shadow_however_quick_it_is",
        ),
        (
            "what is dropped is not counted",
            "                self._dropped += 1\n",
            "                pass\n",
            _SHADOW + "test_a_full_line_drops_and_counts_and_nobody_waits",
        ),
        (
            "a full line is the champion's trouble",
            "        except Full:\n",
            "        except ZeroDivisionError:\n",
            _SHADOW + "test_a_full_line_drops_and_counts_and_nobody_waits",
        ),
        (
            "a version is compared with itself",
            "if version is None or _same(version, champion.version) or not",
            "if version is None or not",
            _SHADOW + "test_a_version_is_not_its_own_shadow",
        ),
        (
            "one that was promoted in between is compared with itself",
            "if not _same(told.version, champion.version):",
            "if True:",
            _SHADOW + "test_one_that_takes_over_in_between_is_not_compared_with_itself",
        ),
        (
            "a fault is told for ever",
            "counted(self._sums, beside), None",
            "counted(self._sums, beside), self._fault",
            _SHADOW + "test_a_fault_of_the_shadow_is_counted_and_told_until_it_is_well",
        ),
        (
            "the share is not asked for",
            " or not chosen(event_id, self._share)",
            "",
            _SHADOW + "test_a_share_is_chosen_by_the_id_alone",
        ),
    ),
    *bugs(
        "comparisons",
        "priorflow/serving/comparisons.py",
        (
            "the file grows for ever",
            "file.stat().st_size + len(line.encode()) > self._most",
            "file.stat().st_size < 0",
            _SHADOW + "test_the_file_is_bounded_and_holds_the_newest",
        ),
        (
            "a line bears the shadow's name of the event",
            "prediction_id(beside.event_id, beside.champion.version.snapshot.sha)",
            "prediction_id(beside.event_id, beside.shadow.version.snapshot.sha)",
            _SHADOW + "test_what_came_of_it_is_in_meters_on_the_page_and_in_the_file",
        ),
    ),
    *bugs(
        "apart",
        "priorflow/serving/apart.py",
        (
            "closed while it starts, it loads all the same",
            "        if self._closed:  #",
            "        if False:  #",
            "tests/app/serving/test_apart.py::test_closed_while_it_is_being_started_it_ends_at_once",
        ),
    ),
    *bugs(
        "log followed",
        "priorflow/serving/champions.py",
        (
            "a log from a backup is gone on with",
            "if seen.hash and (not lines or lines[0].hash != seen.hash):",
            "if seen.hash and not lines:",
            _CHAMPIONS + "test_a_ledger_from_a_backup_is_read_whole_again",
        ),
        (
            "every look reads it whole",
            "self._ledger.decisions(self._chain, since=seen.at)",
            "self._ledger.decisions(self._chain)[seen.at :]",
            _CHAMPIONS + "test_followed_line_by_line_it_names_whom_the_whole_log_names",
        ),
        (
            "lines that put nobody in charge end who was",
            "champion=champion(lines) or seen.champion,",
            "champion=champion(lines),",
            _CHAMPIONS + "test_followed_line_by_line_it_names_whom_the_whole_log_names",
        ),
    ),
    *bugs(
        "candidates",
        "priorflow/case.py",
        (
            "whom the gate put back is the candidate",
            ' and line.action != "rollback")',
            ")",
            _CHAMPIONS + "test_the_candidate_is_whom_the_gates_judged_last",
        ),
    ),
    *bugs(
        "batches",
        "priorflow/batches.py",
        (
            "a text that fails takes its batch along",
            "    failed = told.exception()\n",
            "    failed, _ = None, told.result()\n",
            _BATCHES + "test_a_text_that_fails_costs_its_neighbours_nothing",
        ),
        (
            "a text that is too slow comes for ever",
            "        if alone:\n",
            "        if False:\n",
            _BATCHES + "test_a_batch_that_takes_too_long_is_put_back_and_a_text_alone_is_refused",
        ),
        (
            "neighbours of a slow text are set aside",
            "        raise TooSlow\n",
            "        return Refusal(STAGE, 'slow')\n",
            _BATCHES + "test_a_batch_that_takes_too_long_is_put_back_and_a_text_alone_is_refused",
        ),
        (
            "an answer that comes as its time ends is a letter",
            "    done, _ = wait([told], max(0.0, within_s))\n",
            (
                "    try:\n        return told.result(within_s)\n    except Exception as failed:\n"
                "        if told.done():\n            return Refusal(STAGE, str(failed))\n    done = False\n"
            ),
            _BATCHES + "test_an_answer_that_comes_as_its_time_ends_is_no_letter",
        ),
        (
            "the pace only grows",
            "min(self.most, 2 * self.at_once, fits)",
            "min(self.most, 2 * self.at_once)",
            _BATCHES + "test_a_pace_never_takes_more_than_fits_by_what_it_has_seen",
        ),
    ),
    *bugs(
        "scoring",
        "priorflow/scoring.py",
        (
            "a shadow sees what was undone",
            "                raise\n            return False\n",
            "                raise\n            self._told(done)\n            return False\n",
            _SCORER,
        ),
        (
            "what was erased is answered while the log holds it",
            "gone.emptied(self._decode(raw))",
            "self._decode(raw)",
            _SCORER,
        ),
    ),
    *bugs(
        "passing over",
        "priorflow/passing_over.py",
        ("what is erased later is not heard of", " or counted != self._counted:", ":", _SCORER),
    ),
    *bugs(
        "ledger_engine",
        "connectors/ledger_engine.py",
        (
            "a reader migrates",
            "                _require_known(engine, store)\n",
            "                _upgrade(engine)\n",
            _SCHEMA + "test_an_older_ledger_is_read_by_nobody_who_may_not_migrate_it[sqlite]",
        ),
        (
            "a reader may write",
            'query={"mode": "ro", "uri": "true"}',
            'query={"mode": "rw", "uri": "true"}',
            _SCHEMA
            + "test_what_is_opened_to_be_read_is_read_beside_its_writer_and_cannot_be_written[sqlite]",
        ),
    ),
)
