"""Orders in several currencies, converted by a broadcast table of rates and summed up in two ways at once."""

from collections import Counter

from flinkjob import TaskContext

COUNTRIES = {"de": "EUR", "fr": "EUR", "gb": "GBP", "us": "USD", "jp": "JPY"}
RATES = {"EUR": 100, "GBP": 116, "USD": 92, "JPY": 1}
"""Hundredths of a euro."""


def orders(context: TaskContext) -> None:
    """This subtask's share of the orders: (country, currency, amount)."""
    countries = list(COUNTRIES)
    for number in range(context.subtask, context.args["orders"], context.parallelism):
        country = countries[number * 7 % len(countries)]
        context.emit((country, COUNTRIES[country], number % 997 + 1))


def rates(context: TaskContext) -> None:
    """The table that all subtasks of ``convert`` get in full."""
    for rate in RATES.items():
        context.emit(rate)


def convert(context: TaskContext) -> None:
    """Give each order in euro cents. The inputs are read by the names of their vertices, the table first."""
    rate = dict(context.read("rates"))
    for country, currency, amount in context.read("orders"):
        context.emit((country, amount * rate[currency]))


def per_country(context: TaskContext) -> None:
    """The sum of each country: a hash edge goes by the first item of a record, so one subtask sees all of a country."""
    sums: Counter[str] = Counter()
    for country, cents in context.read():
        sums[country] += cents
    for country, cents in sums.items():
        context.emit(("sum", country, cents))


def largest(context: TaskContext) -> None:
    """The largest order of this subtask's share."""
    country, cents = max(context.read(), key=lambda order: (order[1], order[0]), default=("", 0))
    context.emit(("largest", country, cents))


def summary(context: TaskContext) -> None:
    """Fan-in: the sums in order, and the largest order of all."""
    for record in sorted(context.read("per-country")):
        context.emit(record)
    context.emit(max(context.read("largest"), key=lambda record: (record[2], record[1])))
