"""Measurements that the docs quote; each script prints its manual with --help."""
