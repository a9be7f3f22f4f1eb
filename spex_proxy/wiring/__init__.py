"""Settings -> running parts. Only these files know every concrete class.

One file for each process or command, so that each imports what it runs with and no more: a worker
loads no web framework, the relay no job runner.
"""
