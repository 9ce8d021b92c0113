"""The experiments: each a module with a TITLE, the STUDENTS that it needs, and run(lab) -> Section."""

from types import ModuleType

from . import direct, errors, gamma, orders, table1, versatility

# Name on the command line -> experiment, in the order of the page.
EXPERIMENTS: dict[str, ModuleType] = {
    "table1": table1,
    "gamma": gamma,
    "orders": orders,
    "errors": errors,
    "direct": direct,
    "versatility": versatility,
}
