"""Optuna's dashboard over a study, guarded: people look, nothing is written.

What is served is a mirror of the study in memory (`mirror`), with trials told for people (`telling`), kept up to date
by a thread (`live`) and with pictures made by a process of its own (`painter`). Requests pass a guard (`guard`) and
never reach the study's storage, so nothing a browser asks can slow, break or change a search that is running.
"""
