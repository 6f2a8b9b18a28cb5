"""The ground floor: errors, registries, settings, records, the run folder and the ledger. Nothing here trains."""
