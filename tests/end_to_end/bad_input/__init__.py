"""Every way of going wrong that a user is protected from: how it is brought about, and what the message must say."""

from bad_input import (
    audit_faults,
    data_faults,
    facescrub_faults,
    machine_faults,
    recipe_faults,
    run_faults,
    table_faults,
    transfer_faults,
)  # isort: skip - the order of the page
from bad_input.case import CASES, Case

__all__ = [
    "CASES",
    "Case",
    "audit_faults",
    "data_faults",
    "facescrub_faults",
    "machine_faults",
    "recipe_faults",
    "run_faults",
    "table_faults",
    "transfer_faults",
]
