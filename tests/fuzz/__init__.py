"""Fuzzers over everything that a peer can say: bytes that lie, lengths that lie, order that lies.

Owns the targets (`core.Target`), the mutator, the runner and a kept corpus.  Must not know sockets:
every target is a function of bytes, so that one file reproduces what was found.
"""
