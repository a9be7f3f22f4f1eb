"""What the relay costs, beside peers, on a scripted upstream: `python -m bench.overhead`."""
