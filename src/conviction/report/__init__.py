"""Pictures and tables from records: nothing here needs torch."""
