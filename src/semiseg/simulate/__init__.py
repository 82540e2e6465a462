"""Simulated cohorts: known anatomy, written in the layouts that real data come in."""
