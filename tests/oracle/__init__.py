"""What a running Kong decided, case by case, against what kongai decides.

The cases are not part of this repository; where they are missing, these tests skip.
Each area has a file in ``differences/`` with what is different on purpose, and why.
"""
