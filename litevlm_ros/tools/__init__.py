"""Executables, one thin file each."""
