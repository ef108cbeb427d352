"""What the counters of every back end must do: the part of the contract about `Transaction.add`."""

import threading

import pytest

from store.api import Partition, Store, Table, Transaction
from store.overlay import unpack_cells

ANN = Partition("default", "ann")
BOB = Partition("default", "bob")
OTHER = Partition("other", "ann")
CATALOGUE = Partition("default")


def counter(store: Store, own: Partition, name: bytes) -> list[int]:
    """The cells of a tenant's counter."""
    with store.read(own) as reader:
        return unpack_cells(reader.get(Table.TALLY, name) or b"")


class CounterContract:
    """Tests that take the fixture `store`: an open, empty back end."""

    def test_additions_of_any_partition_join_in_the_tenants_counter(self, store: Store) -> None:
        store.update(ANN, lambda tx: tx.add(b"day", {0: 5, 3: -1}))
        store.update(BOB, lambda tx: tx.add(b"day", {0: 2}))
        store.update(CATALOGUE, lambda tx: tx.add(b"day", {1: 1 << 40}))
        store.update(OTHER, lambda tx: tx.add(b"day", {0: 100}))
        assert counter(store, CATALOGUE, b"day") == [7, 1 << 40, 0, -1]
        assert counter(store, Partition("other"), b"day") == [100]
        assert counter(store, CATALOGUE, b"another") == []
        with store.read(ANN) as reader:
            assert list(reader.scan(Table.TALLY)) == []

    def test_an_operation_that_fails_adds_nothing(self, store: Store) -> None:
        def fail(tx: Transaction) -> None:
            tx.add(b"day", {0: 1})
            tx.put(Table.STATE, b"", b"x")
            raise KeyError("no")

        store.update(ANN, lambda tx: tx.add(b"day", {0: 1}))
        with pytest.raises(KeyError):
            store.update(BOB, fail)
        assert counter(store, CATALOGUE, b"day") == [1]

    @pytest.mark.parametrize(
        ("name", "amounts"), [(b"x" * 501, {0: 1}), (b"day", {-1: 1}), (b"day", {256: 1})]
    )
    def test_counters_beyond_the_limits_are_refused(
        self, store: Store, name: bytes, amounts: dict[int, int]
    ) -> None:
        with pytest.raises(ValueError, match="over the limits"):
            store.update(ANN, lambda tx: tx.add(name, amounts))

    def test_concurrent_additions_are_all_counted(self, store: Store) -> None:
        def work(learner_id: str) -> None:
            partition = Partition("default", learner_id)
            futures = [store.submit(partition, lambda tx: tx.add(b"day", {0: 1, 7: 2})) for _ in range(50)]
            for future in futures:
                future.result(30.0)

        threads = [threading.Thread(target=work, args=(f"l-{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counter(store, CATALOGUE, b"day") == [200, 0, 0, 0, 0, 0, 0, 400]

    def test_additions_alone_make_a_tenant_and_erasing_a_learner_leaves_them(self, store: Store) -> None:
        store.update(ANN, lambda tx: tx.add(b"day", {0: 1}))
        assert store.tenants() == ["default"]
        assert store.erase(ANN) == 0
        assert counter(store, CATALOGUE, b"day") == [1]
        assert store.erase(CATALOGUE) == 1
        assert counter(store, CATALOGUE, b"day") == []
