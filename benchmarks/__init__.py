"""What a request costs: kongai's CPU beside nginx's, in the same run on one machine.

`python -m benchmarks` in the project's directory; see README.md beside this file.
"""
