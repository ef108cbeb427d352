"""What every back end must do. `test_contract.py` runs this suite against each of them."""

import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from store.api import (
    MAX_LEARNER_KEY_BYTES,
    MAX_TENANT_KEY_BYTES,
    Bulk,
    Partition,
    Store,
    StoreUnavailable,
    Table,
    Transaction,
)
from tests.store.counter_contract import ANN, BOB, CATALOGUE, OTHER, CounterContract, counter

HOSTILE_IDS = [
    "a",
    "a b",
    "a/b",
    "a\x7f",
    "A" * 128,
    "é" * 128,
    "学" * 80,
    "😀" * 64,
    "'; drop table --",
    "\u202eabc",
    "..",
    "~",
    "\xff",
]


class StoreContract(CounterContract):
    """Tests that take the fixture `store`: an open, empty back end."""

    def test_empty_store_holds_nothing(self, store: Store) -> None:
        with store.read(ANN) as reader:
            assert reader.get(Table.STATE) is None
            assert list(reader.scan(Table.ANSWER)) == []
        assert store.tenants() == []
        assert store.learners("default", Table.STATE, limit=10) == []
        assert store.erase(ANN) == 0

    def test_a_written_value_is_read_back_and_outlives_the_reader(self, store: Store) -> None:
        store.update(ANN, lambda tx: tx.put(Table.STATE, b"", b"one"))
        with store.read(ANN) as reader:
            value = reader.get(Table.STATE)
        store.update(ANN, lambda tx: tx.put(Table.STATE, b"", b"two"))
        assert value == b"one"

    def test_partitions_tables_and_tenants_are_apart(self, store: Store) -> None:
        store.update(ANN, lambda tx: tx.put(Table.STATE, b"k", b"ann"))
        store.update(BOB, lambda tx: tx.put(Table.STATE, b"k", b"bob"))
        store.update(OTHER, lambda tx: tx.put(Table.STATE, b"k", b"other"))
        store.update(CATALOGUE, lambda tx: tx.put(Table.STATE, b"k", b"catalogue"))
        seen = []
        for partition in (ANN, BOB, OTHER, CATALOGUE):
            with store.read(partition) as reader:
                seen.append((reader.get(Table.STATE, b"k"), reader.get(Table.PROFILE, b"k")))
                assert list(reader.scan(Table.STATE)) == [(b"k", seen[-1][0])]
        assert seen == [(b"ann", None), (b"bob", None), (b"other", None), (b"catalogue", None)]
        assert store.tenants() == ["default", "other"]

    def test_many_operations_at_once_each_stand_alone(self, store: Store) -> None:
        def fail(tx: Transaction) -> int:
            tx.put(Table.STATE, b"", b"never")
            raise ValueError("no")

        def count(tx: Transaction) -> int:
            before = int.from_bytes(tx.get(Table.STATE) or b"", "big")
            tx.put(Table.STATE, b"", (before + 1).to_bytes(1, "big"))
            return before

        done = store.submit_many([(ANN, count), (BOB, fail), (ANN, count), (OTHER, count)])
        assert [done[place].result() for place in (0, 2, 3)] == [0, 1, 0]
        with pytest.raises(ValueError, match="no"):
            done[1].result()
        for partition, value in ((ANN, b"\x02"), (BOB, None), (OTHER, b"\x01")):
            with store.read(partition) as reader:
                assert reader.get(Table.STATE) == value
        assert store.submit_many([]) == []

    def test_a_bulk_reads_and_writes_several_partitions_at_once(self, store: Store) -> None:
        store.update(BOB, lambda tx: tx.put(Table.STATE, b"", b"old"))

        def operation(bulk: Bulk) -> list[bytes | None]:
            found = bulk.get_many(Table.STATE, [(1, b""), (0, b""), (1, b"x")])
            bulk.put_many(Table.STATE, [(1, b"", b"b"), (0, b"", b"a")])
            bulk.put_many(Table.STATE, [(0, b"x", b"c")])
            bulk.add(b"count", {3: 2})
            return found

        assert store.submit_bulk([ANN, BOB], operation).result() == [b"old", None, None]
        with store.read(ANN) as ann, store.read(BOB) as bob:
            assert list(ann.scan(Table.STATE)) == [(b"", b"a"), (b"x", b"c")]
            assert list(bob.scan(Table.STATE)) == [(b"", b"b")]
        assert counter(store, CATALOGUE, b"count") == [0, 0, 0, 2]

    def test_a_bulk_that_fails_leaves_nothing(self, store: Store) -> None:
        def operation(bulk: Bulk) -> None:
            bulk.put_many(Table.STATE, [(0, b"", b"a")])
            bulk.add(b"count", {0: 1})
            bulk.alone(1, lambda tx: tx.put(Table.STATE, b"", b"b"))
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            store.submit_bulk([ANN, BOB], operation).result()
        for partition in (ANN, BOB):
            with store.read(partition) as reader:
                assert reader.get(Table.STATE) is None
        assert store.tenants() == []

    def test_what_a_bulk_does_alone_fails_alone(self, store: Store) -> None:
        def fail(tx: Transaction) -> int:
            tx.put(Table.STATE, b"", b"never")
            tx.add(b"count", {0: 9})
            raise ValueError("no")

        def count(tx: Transaction) -> int:
            tx.put(Table.STATE, b"", b"b")
            tx.add(b"count", {0: 1})
            return 7

        def operation(bulk: Bulk) -> list[int | Exception]:
            bulk.add(b"count", {0: 10})
            return [bulk.alone(0, fail), bulk.alone(1, count)]

        failed, counted = store.submit_bulk([ANN, BOB], operation).result()
        assert isinstance(failed, ValueError)
        assert counted == 7
        with store.read(ANN) as ann, store.read(BOB) as bob:
            assert (ann.get(Table.STATE), bob.get(Table.STATE)) == (None, b"b")
        assert counter(store, CATALOGUE, b"count") == [11]

    def test_a_bulk_refuses_a_key_that_is_too_long(self, store: Store) -> None:
        longest = b"k" * MAX_LEARNER_KEY_BYTES
        put = store.submit_bulk([ANN], lambda bulk: bulk.put_many(Table.STATE, [(0, longest, b"")]))
        assert put.result() is None
        with pytest.raises(ValueError, match="over this partition's limit"):
            store.submit_bulk(
                [ANN], lambda bulk: bulk.put_many(Table.STATE, [(0, longest + b"k", b"")])
            ).result()

    def test_a_transaction_sees_its_own_writes(self, store: Store) -> None:
        store.update(ANN, lambda tx: tx.put_many(Table.ANSWER, [(b"1", b"a"), (b"2", b"b"), (b"4", b"d")]))

        def operation(tx: Transaction) -> list[tuple[bytes, bytes]]:
            tx.put(Table.ANSWER, b"3", b"c")
            tx.put(Table.ANSWER, b"1", b"A")
            assert tx.get(Table.ANSWER, b"3") == b"c"
            assert tx.delete(Table.ANSWER, b"2")
            assert not tx.delete(Table.ANSWER, b"2")
            assert tx.get(Table.ANSWER, b"2") is None
            backwards = list(tx.scan(Table.ANSWER, reverse=True))
            assert backwards == list(tx.scan(Table.ANSWER))[::-1]
            return list(tx.scan(Table.ANSWER))

        expected = [(b"1", b"A"), (b"3", b"c"), (b"4", b"d")]
        assert store.update(ANN, operation) == expected
        with store.read(ANN) as reader:
            assert list(reader.scan(Table.ANSWER)) == expected

    def test_scans_are_half_open_and_ordered_both_ways(self, store: Store) -> None:
        entries = [(bytes([i]), bytes([i])) for i in range(0, 256, 5)]
        store.update(ANN, lambda tx: tx.put_many(Table.ANSWER, entries))
        store.update(ANN, lambda tx: tx.put(Table.PROFILE, b"", b"before"))
        store.update(ANN, lambda tx: tx.put(Table.SESSION, b"", b"after"))
        with store.read(ANN) as reader:
            for start, stop in [
                (b"", None),
                (b"\x0a", b"\x14"),
                (b"\x0b", b"\x13"),
                (b"\xf0", None),
                (b"\xff\x00", None),
            ]:
                expected = [
                    entry for entry in entries if start <= entry[0] and (stop is None or entry[0] < stop)
                ]
                assert list(reader.scan(Table.ANSWER, start=start, stop=stop)) == expected
                assert list(reader.scan(Table.ANSWER, start=start, stop=stop, reverse=True)) == expected[::-1]

    def test_the_last_table_of_the_last_learner_scans_backwards(self, store: Store) -> None:
        store.update(ANN, lambda tx: tx.put_many(Table.SLATE, [(b"\xff", b"1"), (b"\xff\xff", b"2")]))
        with store.read(ANN) as reader:
            assert [key for key, _ in reader.scan(Table.SLATE, reverse=True)] == [b"\xff\xff", b"\xff"]

    def test_a_failing_operation_leaves_no_trace(self, store: Store) -> None:
        def operation(tx: Transaction) -> None:
            tx.put(Table.STATE, b"", b"half done")
            raise LookupError("no such question")

        with pytest.raises(LookupError, match="no such question"):
            store.update(ANN, operation)
        with store.read(ANN) as reader:
            assert reader.get(Table.STATE) is None
        assert store.tenants() == []

    def test_operations_of_one_group_never_see_each_others_failures(self, store: Store) -> None:
        def good(tx: Transaction) -> int:
            count = int(tx.get(Table.META) or b"0") + 1
            tx.put(Table.META, b"", str(count).encode())
            return count

        def bad(tx: Transaction) -> int:
            tx.put(Table.META, b"", b"1000")
            raise ValueError("refused")

        futures: list[Future[int]] = [store.submit(ANN, bad if i % 3 == 0 else good) for i in range(90)]
        results = []
        for i, future in enumerate(futures):
            if i % 3 == 0:
                with pytest.raises(ValueError, match="refused"):
                    future.result()
            else:
                results.append(future.result())
        assert results == list(range(1, 61))

    def test_what_was_acknowledged_is_seen_by_every_thread(self, store: Store) -> None:
        problems: list[str] = []

        def work(name: str) -> None:
            own = Partition("default", name)
            for i in range(25):
                store.update(own, lambda tx, i=i: tx.put(Table.STATE, b"", str(i).encode()))  # type: ignore[misc]
                with store.read(own) as reader:
                    if reader.get(Table.STATE) != str(i).encode():
                        problems.append(f"{name} {i}")

        threads = [threading.Thread(target=work, args=(f"learner-{i}",)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []

    def test_concurrent_increments_are_all_counted(self, store: Store) -> None:
        def increment(tx: Transaction) -> None:
            tx.put(Table.META, b"", str(int(tx.get(Table.META) or b"0") + 1).encode())

        threads = [
            threading.Thread(target=lambda: [store.update(ANN, increment) for _ in range(20)])
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with store.read(ANN) as reader:
            assert reader.get(Table.META) == b"100"

    def test_a_reader_keeps_its_snapshot(self, store: Store) -> None:
        store.update(ANN, lambda tx: tx.put(Table.STATE, b"", b"old"))
        with store.read(ANN) as reader:
            writer = threading.Thread(
                target=store.update, args=(ANN, lambda tx: tx.put(Table.STATE, b"", b"new"))
            )
            writer.start()
            writer.join()
            assert reader.get(Table.STATE) == b"old"
        with store.read(ANN) as reader:
            assert reader.get(Table.STATE) == b"new"

    def test_learners_are_listed_in_order_by_page_and_by_table(self, store: Store) -> None:
        ids = sorted(HOSTILE_IDS + [f"u-{i}" for i in range(30)] + ["u", "u-1 ", "u-1!"])
        for learner_id in ids:
            store.update(Partition("default", learner_id), lambda tx: tx.put(Table.STATE, b"", b"x"))
        store.update(Partition("default", "profile only"), lambda tx: tx.put(Table.PROFILE, b"", b"x"))
        store.update(CATALOGUE, lambda tx: tx.put(Table.STATE, b"", b"x"))
        store.update(Partition("zz", "stranger"), lambda tx: tx.put(Table.STATE, b"", b"x"))
        found: list[str] = []
        while page := store.learners("default", Table.STATE, after=found[-1] if found else "", limit=7):
            assert len(page) <= 7
            found += page
        assert found == ids
        assert store.learners("default", Table.PROFILE, limit=99) == ["profile only"]
        assert store.learners("unknown", Table.STATE, limit=99) == []

    @pytest.mark.parametrize("learner_id", HOSTILE_IDS)
    def test_any_printable_id_is_a_partition_of_its_own(self, store: Store, learner_id: str) -> None:
        partition = Partition("té nant/" + learner_id[:8], learner_id)
        store.update(partition, lambda tx: tx.put(Table.STATE, b"\x00\x01", b"x"))
        with store.read(partition) as reader:
            assert reader.get(Table.STATE, b"\x00\x01") == b"x"
        with store.read(Partition(partition.tenant, learner_id[:-1] + "?")) as reader:
            assert list(reader.scan(Table.STATE)) == []

    @pytest.mark.parametrize("partition", [Partition(""), Partition("t", "a\0b"), Partition("t", "x" * 257)])
    def test_ids_that_cannot_be_stored_are_refused(self, store: Store, partition: Partition) -> None:
        with pytest.raises(ValueError, match=r"empty|NUL|limit"):
            store.update(partition, lambda tx: tx.put(Table.STATE, b"", b"x"))
        with pytest.raises(ValueError, match=r"empty|NUL|limit"), store.read(partition):
            pass

    def test_keys_may_be_as_long_as_promised_and_no_longer(self, store: Store) -> None:
        longest = Partition("t", "学" * 85)
        store.update(longest, lambda tx: tx.put(Table.FEEDBACK, b"k" * MAX_LEARNER_KEY_BYTES, b"x"))
        store.update(CATALOGUE, lambda tx: tx.put(Table.QUESTION, b"k" * MAX_TENANT_KEY_BYTES, b"x"))
        with pytest.raises(ValueError, match="limit of 240"):
            store.update(longest, lambda tx: tx.put(Table.FEEDBACK, b"k" * (MAX_LEARNER_KEY_BYTES + 1), b"x"))
        with pytest.raises(ValueError, match="limit of 500"):
            store.update(CATALOGUE, lambda tx: tx.put_many(Table.QUESTION, [(b"k" * 501, b"x")]))

    def test_erase_removes_one_learner_wholly_and_nobody_else(self, store: Store) -> None:
        for partition in (ANN, BOB, OTHER, Partition("default", "ann ")):
            store.update(partition, lambda tx: tx.put_many(Table.ANSWER, [(b"1", b"a"), (b"2", b"b")]))
            store.update(partition, lambda tx: tx.put(Table.SLATE, b"", b"s"))
        assert store.erase(ANN) == 3
        assert store.erase(ANN) == 0
        with store.read(ANN) as reader:
            assert all(not list(reader.scan(table)) for table in Table)
        assert store.learners("default", Table.ANSWER, limit=9) == ["ann ", "bob"]
        assert store.learners("other", Table.ANSWER, limit=9) == ["ann"]

    def test_deleting_while_scanning_is_safe(self, store: Store) -> None:
        store.update(ANN, lambda tx: tx.put_many(Table.REQUEST, [(bytes([i]), b"x") for i in range(200)]))

        def drop_even(tx: Transaction) -> int:
            return sum(tx.delete(Table.REQUEST, key) for key, _ in tx.scan(Table.REQUEST) if key[0] % 2 == 0)

        assert store.update(ANN, drop_even) == 100
        with store.read(ANN) as reader:
            assert [key[0] for key, _ in reader.scan(Table.REQUEST)] == list(range(1, 200, 2))

    def test_large_values_survive(self, store: Store) -> None:
        value = bytes(range(256)) * 8192
        store.update(ANN, lambda tx: tx.put(Table.STATE, b"", value))
        with store.read(ANN) as reader:
            assert reader.get(Table.STATE) == value

    def test_a_watcher_is_told_of_commits(self, store: Store) -> None:
        told: list[tuple[int, float, bool]] = []
        store.watch(lambda operations, seconds, failed: told.append((operations, seconds, failed)))
        for _ in range(3):
            store.update(ANN, lambda tx: tx.put(Table.STATE, b"", b"x"))
        assert sum(operations for operations, _, _ in told) == 3
        assert all(seconds > 0.0 and not failed for _, seconds, failed in told)

    def test_statistics_count(self, store: Store) -> None:
        before = store.statistics()
        for i in range(5):
            store.update(ANN, lambda tx, i=i: tx.put(Table.ANSWER, bytes([i]), b"x"))  # type: ignore[misc]
        after = store.statistics()
        assert after.operations - before.operations == 5
        assert after.entries - before.entries >= 5
        assert after.used_bytes > 0

    def test_writable_until_closed(self, store: Store, tmp_path: Path) -> None:
        store.check_writable()
        store.update(ANN, lambda tx: tx.put(Table.STATE, b"", b"x"))
        assert store.backup(tmp_path / "copy") > 0
        store.close()
        store.close()
        for call in (
            store.check_writable,
            store.statistics,
            store.tenants,
            lambda: store.read(ANN).__enter__(),
            lambda: store.submit(ANN, lambda tx: None),
            lambda: store.update(ANN, lambda tx: None),
            lambda: store.learners("default", Table.STATE, limit=1),
            lambda: store.backup(tmp_path / "late"),
        ):
            with pytest.raises(StoreUnavailable, match="closed"):
                call()
