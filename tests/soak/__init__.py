"""Hours in minutes: ``python -m tests.soak`` sends steadily, lets everything fail that can, and watches memory.

``trouble`` has what goes wrong, ``memory`` what the processes hold, ``__main__`` the run and its verdict. The ground,
the wire, the handlers and the count at the end are those of ``tests.faults``.
"""
