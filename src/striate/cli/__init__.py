"""Verbs only: parse, call, print. One verb a file; torch is imported when it runs."""
