"""Submission bundles: an entry with the runs that speak for it, in one file that anyone can check.

``bundle`` makes one out of a results folder; ``verify`` checks one without trusting anything in it, in the order
``container`` (the zip), ``manifest`` (what it claims), ``source`` (read, never imported), ``records`` and ``claim`` (is all
there that is claimed); ``rerun`` executes a random sample and compares.
"""
