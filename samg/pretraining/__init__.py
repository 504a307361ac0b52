"""Pretraining of the embedded ``tiny`` networks: data banks, composites, losses and the loop.

The package knows no simulator: ``pretrain.py`` brings frames with exact labels and hands them over.
"""
