"""Sends what is waiting, one queue per destination."""
