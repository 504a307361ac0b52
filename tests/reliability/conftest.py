"""Tests of what happens when something breaks; each says which promise it holds.

``@pytest.mark.reliability("5", "a damaged snapshot is set aside and the one before it goes on")``: the row
of the fault table (1 to 28, or ``exact``, ``soak``) and the promise as a user would read it, without ``|``.
Several marks on one test are possible. ``pytest -m reliability --write-reliability-docs`` puts the results
into docs/reliability.md (``tests/support/promises.py``). Tests that start the real commands or kill processes
carry ``crash``; what takes long carries ``slow`` as well.
"""
