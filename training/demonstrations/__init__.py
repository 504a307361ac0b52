"""Demonstrations: read from files, chosen by outcome, played again for their pixels, kept; and recorded."""
