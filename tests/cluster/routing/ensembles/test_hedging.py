from cluster.routing.ensembles.hedging import HedgeBudget


def test_one_request_in_twenty_may_be_asked_twice_in_the_long_run() -> None:
    budget = HedgeBudget()
    num_twice = 0
    for _ in range(2000):
        budget.earn()
        num_twice += budget.spend()

    assert 100 <= num_twice <= 105


def test_no_more_than_a_few_are_saved_up() -> None:
    budget = HedgeBudget()
    for _ in range(2000):
        budget.earn()

    assert sum(budget.spend() for _ in range(100)) == 5
