"""Thousands of damaged and hostile inputs for every command, kills at every rename, full disks at every write.

A package, so that no module of its folder is found by its bare name.
"""
