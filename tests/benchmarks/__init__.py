"""How fast it is: ``python -m tests.benchmarks`` measures against peers on this machine, and prints a table of ratios.

Each part is a function that returns lines of the table; ``lab`` has the servers and databases, ``peers`` what the app
is compared with, ``tables`` what is printed. A figure alone says little about another machine: a ratio does.
"""
