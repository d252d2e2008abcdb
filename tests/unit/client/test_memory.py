"""memory: no key goes back, whatever falls out of it and whichever epoch it is."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pointsman.memory import Floor, Memory, Sighting

NOTHING = Floor()


def seen(
    memory: Memory, key: str, revision: int, epoch: str = "e-1", asked: Floor = NOTHING, began: str | None = None
) -> None:
    sighting = Sighting(key, revision, revision, epoch)
    memory.saw([sighting], asked, memory.epoch if began is None else began)


class TestRevisions:
    def test_nothing_is_asked_for_before_anything_was_seen(self) -> None:
        assert Memory().floor("a") == NOTHING

    def test_a_key_has_the_highest_revision_that_was_seen_of_it(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        seen(memory, "a", 5)
        assert memory.floor("a") == Floor(7, "e-1")

    def test_another_key_asks_for_nothing_but_names_the_epoch(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        assert memory.floor("b") == memory.floor() == Floor(1, "e-1")

    def test_an_empty_database_is_not_asked_for_a_revision_that_it_does_not_have(self) -> None:
        memory = Memory()
        seen(memory, "a", 0)
        assert memory.floor("a").revision == 0

    def test_own_writes_count_for_every_key(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        seen(memory, "b", 12)
        memory.wrote(9, "e-1")
        assert (memory.floor("a").revision, memory.floor("b").revision, memory.written) == (9, 12, 9)

    def test_the_highest_of_all_threads_counts(self) -> None:
        memory = Memory()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda n: (memory.wrote(n, ""), seen(memory, "a", 2 * n)), [3, 900, 7, *range(500)]))
        assert (memory.written, memory.floor("a").revision) == (900, 1800)

    def test_can_be_forgotten(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        memory.wrote(9, "e-1")
        memory.forget()
        assert (memory.floor("a"), memory.written, memory.epoch) == (NOTHING, 0, "")

    def test_says_which_answers_of_a_batch_are_too_old(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        seen(memory, "b", 9)
        answers = [Sighting("a", 3, 8, "e-1"), Sighting("b", 3, 8, "e-1"), Sighting("c", 3, 8, "e-1")]
        assert memory.behind(answers) == {"b": Floor(9, "e-1")}

    def test_another_epoch_is_not_older(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        assert memory.behind([Sighting("a", 3, 3, "e-2")]) == {}


class TestBounds:
    def test_a_key_that_falls_out_is_still_not_seen_to_go_back(self) -> None:
        memory = Memory(keys=2)
        for key, revision in (("a", 5), ("b", 9), ("c", 6)):
            seen(memory, key, revision)
        assert [memory.floor(key).revision for key in "abc"] == [5, 9, 6]
        assert memory.floor("never seen").revision == 5

    def test_the_one_whose_revision_was_learned_the_longest_ago_goes(self) -> None:
        memory = Memory(keys=2)
        for key, revision in (("a", 5), ("b", 6), ("a", 9), ("c", 10)):
            seen(memory, key, revision)
        assert memory.floor("never seen").revision == 6

    def test_no_promise_is_lost_whatever_the_order(self) -> None:
        memory, highest = Memory(keys=10), dict[str, int]()
        for step in range(1, 2000):
            key, revision = f"k{step * 7 % 97}", step * 31 % 503 + 1
            seen(memory, key, revision)
            highest[key] = max(highest.get(key, 0), revision)
            assert memory.floor(key).revision >= highest[key]
        assert all(memory.floor(key).revision >= revision for key, revision in highest.items())

    def test_it_may_hold_no_keys_at_all(self) -> None:
        memory = Memory(keys=0)
        seen(memory, "a", 5)
        assert memory.floor("b") == Floor(5, "e-1")

    def test_less_than_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="remembered_keys"):
            Memory(keys=-1)


class TestEpochs:
    def test_an_answer_from_another_epoch_to_a_question_that_named_ours_begins_that_one(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        memory.wrote(9, "e-1")
        seen(memory, "b", 3, "e-2", asked=Floor(1, "e-1"))
        assert (memory.floor("a"), memory.floor("b"), memory.written) == (Floor(1, "e-2"), Floor(3, "e-2"), 0)

    def test_a_late_answer_of_the_old_one_changes_nothing(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        seen(memory, "a", 3, "e-2", asked=Floor(7, "e-1"))
        seen(memory, "a", 8, "e-1", asked=Floor(7, "e-1"), began="e-1")
        assert memory.floor("a") == Floor(3, "e-2")

    def test_nor_does_one_that_asked_for_nothing(self) -> None:
        memory = Memory()
        seen(memory, "a", 3, "e-2")
        seen(memory, "a", 8, "e-1", asked=NOTHING)
        assert memory.floor("a") == Floor(3, "e-2")

    def test_an_epoch_that_was_left_does_not_come_back(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        seen(memory, "a", 3, "e-2", asked=Floor(7, "e-1"))
        seen(memory, "a", 8, "e-1", asked=Floor(3, "e-2"))
        assert memory.epoch == "e-2"

    def test_a_client_that_saw_the_old_epoch_first_moves_to_the_new_one(self) -> None:
        memory = Memory()
        seen(memory, "a", 8, "e-1")
        seen(memory, "a", 3, "e-2", asked=memory.floor("a"))
        assert memory.floor("a") == Floor(3, "e-2")

    def test_while_nothing_counts_any_epoch_may_begin(self) -> None:
        memory = Memory()
        seen(memory, "a", 0, "e-1")
        seen(memory, "a", 0, "e-2", asked=NOTHING)
        seen(memory, "a", 4, "e-1", asked=NOTHING)
        assert memory.floor("a") == Floor(4, "e-1")

    def test_what_was_written_before_one_was_known_belongs_to_the_first(self) -> None:
        memory = Memory()
        memory.wrote(9, began="")
        assert memory.floor("a") == Floor(9, "")
        seen(memory, "b", 3)
        assert memory.floor("a") == Floor(9, "e-1")

    def test_a_write_that_began_in_an_epoch_that_is_over_does_not_count(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        seen(memory, "a", 3, "e-2", asked=Floor(7, "e-1"))
        memory.wrote(100, began="e-1")
        assert memory.written == 0

    def test_an_answer_that_says_none_is_of_the_one_that_was_known_when_it_was_asked_for(self) -> None:
        memory = Memory()
        seen(memory, "a", 7)
        seen(memory, "a", 8, epoch="", began="e-1")
        seen(memory, "a", 9, epoch="", began="e-0")
        assert memory.floor("a") == Floor(8, "e-1")

    def test_a_server_that_knows_no_epochs_is_remembered_too(self) -> None:
        memory = Memory()
        seen(memory, "a", 7, epoch="")
        assert memory.floor("a") == Floor(7, "")

    def test_of_the_ones_that_were_left_the_last_few_are_known(self) -> None:
        memory = Memory()
        seen(memory, "a", 1, "e-0")
        for number in range(1, 40):
            seen(memory, "a", 1, f"e-{number}", asked=memory.floor("a"))
        assert len(memory._left) == 16
        assert "e-38" in memory._left
