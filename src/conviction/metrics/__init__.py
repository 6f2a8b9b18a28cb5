"""Figures from scores and labels: pure functions, no network, no data."""
