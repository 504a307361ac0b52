"""What every room may use: errors, atomic files, seeding, paths and the masker protocol."""
