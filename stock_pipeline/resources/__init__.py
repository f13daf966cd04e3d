"""Dagster resources for the three systems; each connects when it is first used."""
