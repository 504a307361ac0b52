"""The training loop and what it keeps: replay, snapshots, logs."""
