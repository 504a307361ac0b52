"""Simulators as gymnasium environments that return pixels, and the levels of the generalisation benchmark."""
